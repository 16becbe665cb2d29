/* A PKCS#11 module that is SoftHSM2 until its control file says otherwise.

   SHIM_LIBRARY is the real module, SHIM_CONTROL the control file: lines "FUNCTION ACTION", read anew at each call. Actions: a number (the
   answer instead of the call), "crash", "hang", "crash-after" (the real call first), "empty" (no slots), "flags NUMBER" (ored to those of
   the token), "wrong" (the real call, and one bit of what C_Encrypt gives is another), "pad PIN" (C_Login without a PIN becomes one with this), "locking" (C_Initialize wants CKF_OS_LOCKING_OK). Each call is written to SHIM_CONTROL.calls. */

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ul;
typedef ul (*function)(void *, void *, void *, void *, void *, void *, void *, void *);

static struct { unsigned char version[8]; void *call[68]; } list, *real;
static const char *names[] = {
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo",
    "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession",
    "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
    "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue",
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
    "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
    "C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit",
    "C_SignRecover", "C_VerifyInit", "C_Verify"};
enum { COUNT = sizeof names / sizeof *names, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, LOGIN = 18 };

/* The action for a function, or NULL. "*" stands for all. */
static char *action(const char *name, char *line, size_t room) {
    const char *path = getenv("SHIM_CONTROL");
    FILE *file = path ? fopen(path, "r") : NULL;
    char *found = NULL;
    while (file && !found && fgets(line, room, file)) {
        char *blank = strchr(line, ' ');
        if (!blank) continue;
        *blank = 0;
        line[blank + 1 - line + strcspn(blank + 1, "\n")] = 0;
        if (!strcmp(line, name) || !strcmp(line, "*")) found = blank + 1;
    }
    if (file) fclose(file);
    return found;
}

static void note(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s.calls", getenv("SHIM_CONTROL") ? getenv("SHIM_CONTROL") : "/dev/null");
    int out = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (out >= 0) {
        dprintf(out, "%s\n", name);
        close(out);
    }
}

static ul wrapped(int index, void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) {
    char line[512];
    char *what = action(names[index], line, sizeof line);
    function call = (function)real->call[index];
    if (index == LOGIN || what) note(names[index]);
    if (!what) return call(a, b, c, d, e, f, g, h);
    if (!strcmp(what, "crash")) raise(SIGSEGV);
    if (!strcmp(what, "hang")) for (;;) pause();
    if (!strcmp(what, "crash-after")) {
        call(a, b, c, d, e, f, g, h);
        raise(SIGSEGV);
    }
    if (!strcmp(what, "empty")) {
        *(ul *)c = 0;
        return 0;
    }
    if (!strncmp(what, "flags ", 6)) {
        ul code = call(a, b, c, d, e, f, g, h);
        if (!code) *(ul *)((char *)b + 96) |= strtoul(what + 6, NULL, 0);
        return code;
    }
    if (!strcmp(what, "wrong")) {
        ul code = call(a, b, c, d, e, f, g, h);
        if (!code && d) ((unsigned char *)d)[*(ul *)e / 2] ^= 1;
        return code;
    }
    if (!strcmp(what, "locking")) return a && ((ul *)a)[4] & 2 ? call(a, b, c, d, e, f, g, h) : 7;
    if (!strncmp(what, "pad ", 4)) return c ? 0xA0 : call(a, b, what + 4, (void *)strlen(what + 4), e, f, g, h);
    return strtoul(what, NULL, 0);
}

#define W(n) \
    static ul w##n(void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) { return wrapped(n, a, b, c, d, e, f, g, h); }
W(0) W(1) W(4) W(5) W(6) W(7) W(8) W(12) W(13) W(15) W(18) W(19) W(24) W(26) W(27) W(29) W(30) W(33) W(34) W(42) W(43) W(48) W(49)

ul C_GetFunctionList(void **out) {
    void *library = dlopen(getenv("SHIM_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    ul (*get)(void **) = library ? (ul(*)(void **))dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || get((void **)&real)) return 5;
    memcpy(&list, real, sizeof list);
#define S(n) list.call[n] = (void *)w##n;
    S(0) S(1) S(4) S(5) S(6) S(7) S(8) S(12) S(13) S(15) S(18) S(19) S(24) S(26) S(27) S(29) S(30) S(33) S(34) S(42) S(43) S(48) S(49)
    *out = &list;
    return 0;
}
