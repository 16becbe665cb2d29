/* A PKCS#11 module that is SoftHSM2 until its control file says otherwise.

   SHIM_LIBRARY is the real module, SHIM_CONTROL the control file: lines "FUNCTION ACTION", read anew at each call. Actions: a number (the
   answer instead of the call), "crash", "hang", "crash-after" (the real call first), "empty" (no slots), "flags NUMBER" (ored to those of
   the token), "wrong" (the real call, and one bit of what C_Encrypt or C_Sign gives is another), "length NUMBER" (the real call, and then it
   says that what it gives is so long), "any" (C_FindObjectsInit does not look at CKA_ID), "reject" (one bit of what C_DecapsulateKey is given
   is another), "-" (nothing: it is only written down), "pad PIN" (C_Login without a PIN becomes one with this), "locking" (C_Initialize wants CKF_OS_LOCKING_OK). Each call is
   written to SHIM_CONTROL.calls. Interfaces of PKCS#11 3 are passed on where the real module has some. */

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ul;
typedef ul (*function)(void *, void *, void *, void *, void *, void *, void *, void *);

typedef struct { ul type; void *value; ul length; } attribute;
typedef struct { const char *name; void *functions; ul flags; } interface;

/* 68 functions of version 2.40, 24 of 3.0, 12 of 3.2. */
enum { COUNT_2 = 68, COUNT_3_0 = 92, COUNT_3_2 = 104 };
typedef struct { unsigned char version[8]; void *call[COUNT_3_2]; } functions;
static functions list, *real, lists[8];
static void *behind[COUNT_3_2];
static const char *names[] = {
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo",
    "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession",
    "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
    "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue",
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
    "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
    "C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit",
    "C_SignRecover", "C_VerifyInit", "C_Verify", [92] = "C_EncapsulateKey", "C_DecapsulateKey"};
enum { SLOT_LIST = 4, MECHANISM_LIST = 7, LOGIN = 18, ATTRIBUTES = 24, FIND_INIT = 26, FIND = 27, DECAPSULATE = 93 };

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

/* Where a function says how much it gives. */
static ul *length_of(int index, void *c, void *d, void *e) {
    return index == SLOT_LIST || index == MECHANISM_LIST ? c : index == FIND ? d : e;
}

static ul wrapped(int index, void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) {
    char line[512];
    char *what = action(names[index], line, sizeof line);
    function call = (function)behind[index];
    if (index == LOGIN || what) note(names[index]);
    if (!what || !strcmp(what, "-")) return call(a, b, c, d, e, f, g, h);
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
    if (!strncmp(what, "length ", 7)) {
        ul code = call(a, b, c, d, e, f, g, h), length = strtoul(what + 7, NULL, 0);
        if (index != ATTRIBUTES) *length_of(index, c, d, e) = length;
        else for (ul at = 0; at < (ul)d; at++) ((attribute *)c)[at].length = length;
        return code;
    }
    if (!strcmp(what, "any")) {
        attribute kept[64];
        ul many = 0;
        for (ul at = 0; at < (ul)c && many < 64; at++)
            if (((attribute *)b)[at].type != 0x102) kept[many++] = ((attribute *)b)[at];
        return call(a, kept, (void *)many, d, e, f, g, h);
    }
    if (!strcmp(what, "reject")) {
        unsigned char other[8192];
        memcpy(other, f, (ul)g);
        other[0] ^= 1;
        return call(a, b, c, d, e, other, g, h);
    }
    if (!strcmp(what, "locking")) return a && ((ul *)a)[4] & 2 ? call(a, b, c, d, e, f, g, h) : 7;
    if (!strncmp(what, "pad ", 4)) return c ? 0xA0 : call(a, b, what + 4, (void *)strlen(what + 4), e, f, g, h);
    return strtoul(what, NULL, 0);
}

#define W(n) \
    static ul w##n(void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h) { return wrapped(n, a, b, c, d, e, f, g, h); }
#define ALL(each) \
    each(0) each(1) each(4) each(5) each(6) each(7) each(8) each(12) each(13) each(15) each(18) each(19) each(24) each(26) each(27) \
    each(29) each(30) each(33) each(34) each(42) each(43) each(48) each(49) each(92) each(93)
ALL(W)

/* `count` functions of the real module, with ours in their places. */
static void front(functions *made, functions *of, int count) {
    memcpy(made, of, sizeof made->version + count * sizeof(void *));
    for (int index = 0; index < count; index++) behind[index] = of->call[index];
#define S(n) if (n < count) made->call[n] = (void *)w##n;
    ALL(S)
}

static void *symbol(const char *name) {
    void *library = dlopen(getenv("SHIM_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : NULL;
}

ul C_GetFunctionList(void **out) {
    ul (*get)(void **) = (ul(*)(void **))symbol("C_GetFunctionList");
    if (!get || get((void **)&real)) return 5;
    front(&list, real, COUNT_2);
    *out = &list;
    return 0;
}

ul C_GetInterfaceList(interface *room, ul *count) {
    char line[512], *what = action("C_GetInterfaceList", line, sizeof line);
    ul (*get)(interface *, ul *) = (ul(*)(interface *, ul *))symbol("C_GetInterfaceList");
    ul code = what ? strtoul(what, NULL, 0) : get ? get(room, count) : 0x54;
    for (ul index = 0; !code && room && index < *count && index < 8; index++) {
        functions *of = room[index].functions;
        front(&lists[index], of, of->version[0] < 3 ? COUNT_2 : of->version[1] < 2 ? COUNT_3_0 : COUNT_3_2);
        room[index].functions = &lists[index];
    }
    return code;
}
