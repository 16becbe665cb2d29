/* A PKCS#11 3.2 module with ML-DSA and ML-KEM keys: SoftHSM2 with what no Debian module has yet.

   LATTICE_LIBRARY is the real module, LATTICE_HELPER what does the arithmetic (lattice_arithmetic.py; LATTICE_PYTHON runs it, over a socket
   pair). A lattice key is a data object of the real token: sessions, logins, what is private and what stays are the real module's. Its label,
   the one thing that SoftHSM2 lets be changed, is the list of the key's attributes. Numbers, structures and the order of functions are those of PKCS #11 v3.2 (pkcs11t.h, pkcs11f.h). */

#include <dlfcn.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long ul;
typedef unsigned char byte;
typedef struct { ul type; void *value; ul length; } attribute;
typedef struct { ul number; void *parameter; ul length; } mechanism;
typedef struct { ul hedge; byte *context; ul length; } additional_context; /* CK_SIGN_ADDITIONAL_CONTEXT */
typedef struct { const char *name; void *functions; ul flags; } interface;

/* Places in CK_FUNCTION_LIST: 68 of version 2.40, 24 of 3.0, 12 of 3.2. */
enum {
    FINALIZE = 1, GET_FUNCTION_LIST = 3, MECHANISM_LIST = 7, MECHANISM_INFO = 8, CLOSE_SESSION = 13, CLOSE_ALL = 14, CREATE = 20,
    DESTROY = 22, GET_ATTRIBUTES = 24, SET_ATTRIBUTES = 25, FIND_INIT = 26, FIND = 27, FIND_FINAL = 28, SIGN_INIT = 42, SIGN = 43,
    VERIFY_INIT = 48, VERIFY = 49, GENERATE_PAIR = 59, INTERFACE_LIST = 68, INTERFACE = 69, ENCAPSULATE = 92, DECAPSULATE = 93,
    COUNT_2 = 68, COUNT_3 = 104
};
enum {
    CKA_CLASS = 0x0, CKA_TOKEN = 0x1, CKA_PRIVATE = 0x2, CKA_LABEL = 0x3, CKA_APPLICATION = 0x10, CKA_VALUE = 0x11, CKA_KEY_TYPE = 0x100, CKA_SUBJECT = 0x101,
    CKA_ID = 0x102,
    CKA_SENSITIVE = 0x103, CKA_SIGN = 0x108, CKA_VERIFY = 0x10A, CKA_VALUE_LEN = 0x161, CKA_EXTRACTABLE = 0x162, CKA_LOCAL = 0x163,
    CKA_ALWAYS_AUTHENTICATE = 0x202, CKA_PARAMETER_SET = 0x61D, CKA_ENCAPSULATE = 0x633, CKA_DECAPSULATE = 0x634, CKA_SEED = 0x637
};
enum { CKO_DATA = 0, CKO_PUBLIC_KEY = 2, CKO_PRIVATE_KEY = 3, CKK_ML_KEM = 0x49, CKK_ML_DSA = 0x4A };
enum { CKM_ML_KEM_KEY_PAIR_GEN = 0xF, CKM_ML_KEM = 0x17, CKM_ML_DSA_KEY_PAIR_GEN = 0x1C, CKM_ML_DSA = 0x1D };
enum {
    OK = 0, GENERAL = 5, ARGUMENTS = 7, READ_ONLY = 0x10, SENSITIVE = 0x11, TYPE_INVALID = 0x12, VALUE_INVALID = 0x13,
    ENCRYPTED_LENGTH = 0x41, NOT_SUPPORTED = 0x54, KEY_HANDLE = 0x60, KEY_TYPE = 0x63, NOT_PERMITTED = 0x68, MECHANISM = 0x70,
    PARAMETER = 0x71, ACTIVE = 0x90, NOT_INITIALIZED = 0x91, SIGNATURE_INVALID = 0xC0, SIGNATURE_LENGTH = 0xC1, INCOMPLETE = 0xD0,
    TOO_SMALL = 0x150
};
static const ul NOTHING = (ul)-1;

/* By parameter set (1, 2, 3): octets of public keys, of seeds, of signatures or ciphertexts (FIPS 204, FIPS 203). There is no ML-KEM-512. */
static const ul dsa_public[] = {0, 1312, 1952, 2592}, dsa_signature[] = {0, 2420, 3309, 4627};
static const ul kem_public[] = {0, 0, 1184, 1568}, kem_ciphertext[] = {0, 0, 1088, 1568};
static ul seed_octets(ul kind) { return kind == CKK_ML_KEM ? 64 : 32; }
static ul public_octets(ul kind, ul set) { return set > 3 ? 0 : kind == CKK_ML_KEM ? kem_public[set] : dsa_public[set]; }

enum { ROOM = 16384, MOST = 48, SESSIONS = 256, FOUND = 1024 };
static const char APPLICATION[] = "lattice key";

static struct { byte version[8]; void *call[COUNT_2]; } list2, *real;
static struct { byte version[8]; void *call[COUNT_3]; } list3;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER, talking = PTHREAD_MUTEX_INITIALIZER;

#define REAL(place, ...) ((ul(*)())real->call[place])(__VA_ARGS__)

/* -- the helper ------------------------------------------------------------------------------------------------------------------- */

static int helper = -1;
static pid_t helper_pid;
extern char **environ;

static int start(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
    char *arguments[] = {getenv("LATTICE_PYTHON"), getenv("LATTICE_HELPER"), NULL};
    int failed = !arguments[0] || !arguments[1] || posix_spawn(&helper_pid, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    if (failed) close(pair[0]);
    return failed ? -1 : (helper = pair[0]);
}

static int through(int (*move)(int, void *, size_t), void *at, size_t left) {
    for (; left; ) {
        int moved = move(helper, at, left);
        if (moved <= 0) return 0;
        at = (byte *)at + moved;
        left -= moved;
    }
    return 1;
}
static int out(int to, void *at, size_t size) { return send(to, at, size, MSG_NOSIGNAL); }
static int in(int from, void *at, size_t size) { return recv(from, at, size, 0); }

/* Question: verb, parameter set, and two strings; answer: 1 and two strings, or 0. */
static ul ask(char verb, ul set, const void *one, ul one_size, const void *two, ul two_size, byte *first, ul *first_size, byte *second,
              ul *second_size) {
    uint32_t head[4] = {(byte)verb, set, one_size, two_size}, answer[3];
    ul done = 0;
    pthread_mutex_lock(&talking);
    if ((helper >= 0 || start() >= 0) && through(out, head, sizeof head) && through(out, (void *)one, one_size) &&
        through(out, (void *)two, two_size) && through(in, answer, sizeof answer) && answer[1] <= ROOM && answer[2] <= ROOM) {
        byte unread[ROOM];
        if (through(in, first ? first : unread, answer[1]) && through(in, second ? second : unread, answer[2])) {
            if (first_size) *first_size = answer[1];
            if (second_size) *second_size = answer[2];
            done = answer[0];
        }
    }
    pthread_mutex_unlock(&talking);
    return done;
}

/* -- objects ---------------------------------------------------------------------------------------------------------------------- */

typedef struct { attribute of[MOST]; ul count; byte octets[ROOM]; ul used; } values;

static attribute *value_of(values *all, ul type) {
    for (ul index = 0; index < all->count; index++)
        if (all->of[index].type == type) return &all->of[index];
    return NULL;
}
static ul number_of(values *all, ul type, ul otherwise) {
    attribute *found = value_of(all, type);
    return found && found->length == sizeof(ul) ? *(ul *)found->value : found && found->length == 1 ? *(byte *)found->value : otherwise;
}
static void set(values *all, ul type, const void *value, ul length) {
    attribute *place = value_of(all, type);
    if (!place && all->count < MOST) place = &all->of[all->count++];
    ul at = (all->used + 7) & ~7ul;
    if (!place || at + length > ROOM) return;
    place->type = type;
    place->value = memcpy(all->octets + at, value, length);
    place->length = length;
    all->used = at + length;
}
static void set_number(values *all, ul type, ul number) { set(all, type, &number, sizeof number); }
static void set_flag(values *all, ul type, byte flag) { set(all, type, &flag, 1); }
static void set_default(values *all, ul type, byte flag) { if (!value_of(all, type)) set_flag(all, type, flag); }

/* Written as (type, length, octets) one after the other. */
static ul written(values *all, byte *room) {
    ul used = 0;
    for (ul index = 0; index < all->count; index++) {
        memcpy(room + used, &all->of[index].type, 8);
        memcpy(room + used + 8, &all->of[index].length, 8);
        memcpy(room + used + 16, all->of[index].value, all->of[index].length);
        used += 16 + all->of[index].length;
    }
    return used;
}

/* The attributes of a lattice key; 0 where `object` is none. */
static int load(ul session, ul object, values *all) {
    ul class = NOTHING;
    char application[sizeof APPLICATION] = "";
    byte room[ROOM];
    attribute wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_APPLICATION, application, sizeof APPLICATION}};
    if (REAL(GET_ATTRIBUTES, session, object, wanted, 1ul) || class != CKO_DATA) return 0;
    if (REAL(GET_ATTRIBUTES, session, object, wanted + 1, 1ul) || strcmp(application, APPLICATION)) return 0;
    attribute value = {CKA_LABEL, room, sizeof room};
    if (REAL(GET_ATTRIBUTES, session, object, &value, 1ul)) return 0;
    all->count = all->used = 0;
    for (ul at = 0; at + 16 <= value.length; ) {
        ul type, length;
        memcpy(&type, room + at, 8);
        memcpy(&length, room + at + 8, 8);
        set(all, type, room + at + 16, length);
        at += 16 + length;
    }
    return 1;
}

static ul store(ul session, values *all, ul *object) {
    byte room[ROOM * 2], token = number_of(all, CKA_TOKEN, 0), private = number_of(all, CKA_PRIVATE, 0);
    ul class = CKO_DATA;
    attribute made[] = {{CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, &token, 1}, {CKA_PRIVATE, &private, 1},
                        {CKA_APPLICATION, (void *)APPLICATION, sizeof APPLICATION}, {CKA_LABEL, room, written(all, room)}};
    return REAL(CREATE, session, made, 5ul, object);
}

static int gathered(values *all, attribute *template, ul count) {
    all->count = all->used = 0;
    for (ul index = 0; index < count; index++) {
        if (template[index].length > ROOM / 2) return 0;
        set(all, template[index].type, template[index].value, template[index].length);
    }
    return 1;
}

static void complete(values *all, ul class, ul kind, ul parameters, byte local) {
    set_number(all, CKA_CLASS, class);
    set_number(all, CKA_KEY_TYPE, kind);
    set_number(all, CKA_PARAMETER_SET, parameters);
    set_flag(all, CKA_LOCAL, local);
    set_default(all, CKA_TOKEN, 0);
    set_default(all, CKA_PRIVATE, class == CKO_PRIVATE_KEY);
    if (class == CKO_PRIVATE_KEY) {
        set_default(all, CKA_SENSITIVE, 1);
        set_default(all, CKA_EXTRACTABLE, 0);
        set_default(all, CKA_ALWAYS_AUTHENTICATE, 0);
    }
    set_default(all, class == CKO_PRIVATE_KEY ? CKA_SIGN : CKA_VERIFY, kind == CKK_ML_DSA);
    set_default(all, class == CKO_PRIVATE_KEY ? CKA_DECAPSULATE : CKA_ENCAPSULATE, kind == CKK_ML_KEM);
}

static ul create(ul session, attribute *template, ul count, ul *object) {
    values all;
    if (!gathered(&all, template, count)) return REAL(CREATE, session, template, count, object);
    ul kind = number_of(&all, CKA_KEY_TYPE, 0), class = number_of(&all, CKA_CLASS, NOTHING);
    if ((kind != CKK_ML_KEM && kind != CKK_ML_DSA) || (class != CKO_PUBLIC_KEY && class != CKO_PRIVATE_KEY))
        return REAL(CREATE, session, template, count, object);
    ul parameters = number_of(&all, CKA_PARAMETER_SET, 0);
    attribute *value = value_of(&all, class == CKO_PRIVATE_KEY ? CKA_SEED : CKA_VALUE);
    /* "Tokens may reject creation requests that only specify one of these values": this one wants the seed. */
    if (!value || !parameters) return INCOMPLETE;
    if (!public_octets(kind, parameters)) return VALUE_INVALID;
    if (value->length != (class == CKO_PRIVATE_KEY ? seed_octets(kind) : public_octets(kind, parameters))) return VALUE_INVALID;
    complete(&all, class, kind, parameters, 0);
    return store(session, &all, object);
}

static ul generate(ul session, mechanism *how, attribute *public, ul public_count, attribute *private, ul private_count, ul *one, ul *two) {
    if (how->number != CKM_ML_KEM_KEY_PAIR_GEN && how->number != CKM_ML_DSA_KEY_PAIR_GEN)
        return REAL(GENERATE_PAIR, session, how, public, public_count, private, private_count, one, two);
    if (how->parameter || how->length) return PARAMETER;
    ul kind = how->number == CKM_ML_KEM_KEY_PAIR_GEN ? CKK_ML_KEM : CKK_ML_DSA, seed_size, key_size;
    values open, secret;
    byte seed[ROOM], key[ROOM];
    if (!gathered(&open, public, public_count) || !gathered(&secret, private, private_count)) return ARGUMENTS;
    ul parameters = number_of(&open, CKA_PARAMETER_SET, 0);
    if (!parameters) return INCOMPLETE;
    if (!public_octets(kind, parameters)) return VALUE_INVALID;
    if (!ask(kind == CKK_ML_KEM ? 'K' : 'D', parameters, "", 0, "", 0, seed, &seed_size, key, &key_size)) return GENERAL;
    set(&open, CKA_VALUE, key, key_size);
    set(&secret, CKA_SEED, seed, seed_size);
    complete(&open, CKO_PUBLIC_KEY, kind, parameters, 1);
    complete(&secret, CKO_PRIVATE_KEY, kind, parameters, 1);
    ul code = store(session, &open, one);
    if (!code && (code = store(session, &secret, two))) REAL(DESTROY, session, *one);
    return code;
}

static ul get_attributes(ul session, ul object, attribute *template, ul count) {
    values all;
    if (!load(session, object, &all)) return REAL(GET_ATTRIBUTES, session, object, template, count);
    ul code = OK, class = number_of(&all, CKA_CLASS, NOTHING);
    for (ul index = 0; index < count; index++) {
        attribute *wanted = &template[index], *found = value_of(&all, wanted->type);
        /* Private keys give nothing away here, whatever CKA_SENSITIVE says. */
        int kept = class == CKO_PRIVATE_KEY && (wanted->type == CKA_SEED || wanted->type == CKA_VALUE);
        if (kept || !found) {
            wanted->length = NOTHING;
            code = kept ? SENSITIVE : TYPE_INVALID;
        } else if (wanted->value && wanted->length < found->length) {
            wanted->length = NOTHING;
            code = TOO_SMALL;
        } else {
            if (wanted->value) memcpy(wanted->value, found->value, found->length);
            wanted->length = found->length;
        }
    }
    return code;
}

static ul set_attributes(ul session, ul object, attribute *template, ul count) {
    values all;
    if (!load(session, object, &all)) return REAL(SET_ATTRIBUTES, session, object, template, count);
    for (ul index = 0; index < count; index++) {
        ul type = template[index].type;
        if (type != CKA_LABEL && type != CKA_SUBJECT && type != CKA_ID) return READ_ONLY;
        set(&all, type, template[index].value, template[index].length);
    }
    byte room[ROOM * 2];
    attribute value = {CKA_LABEL, room, written(&all, room)};
    return REAL(SET_ATTRIBUTES, session, object, &value, 1ul);
}

/* -- what goes on in sessions ------------------------------------------------------------------------------------------------------- */

typedef struct {
    ul session, object, kind, found_count, found_at, found[FOUND];
    int used, finding, context_size;
    byte context[255];
} state;
static state states[SESSIONS];

/* Called with the guard held. */
static state *state_of(ul session) {
    state *free_one = NULL;
    for (int index = 0; index < SESSIONS; index++) {
        if (states[index].used && states[index].session == session) return &states[index];
        if (!states[index].used && !free_one) free_one = &states[index];
    }
    if (free_one) {
        memset(free_one, 0, sizeof *free_one);
        free_one->used = 1;
        free_one->session = session;
    }
    return free_one;
}
static void forget(ul session, int all) {
    pthread_mutex_lock(&guard);
    for (int index = 0; index < SESSIONS; index++)
        if (all || states[index].session == session) states[index].used = 0;
    pthread_mutex_unlock(&guard);
}
static ul close_session(ul session) { forget(session, 0); return REAL(CLOSE_SESSION, session); }
static ul close_all(ul slot) { forget(0, 1); return REAL(CLOSE_ALL, slot); }
static ul finalize(void *reserved) {
    forget(0, 1);
    if (helper >= 0) {
        close(helper);
        helper = -1;
        waitpid(helper_pid, NULL, 0);
    }
    return REAL(FINALIZE, reserved);
}

/* Adds what a search of the real module finds. */
static ul search(ul session, state *now, attribute *template, ul count, attribute *matching, ul matching_count) {
    ul code = REAL(FIND_INIT, session, template, count), object, got;
    if (code) return code;
    static ul candidates[FOUND];
    ul many = 0;
    while (!(code = REAL(FIND, session, &object, 1ul, &got)) && got && many < FOUND) candidates[many++] = object;
    REAL(FIND_FINAL, session);
    for (ul index = 0; !code && index < many && now->found_count < FOUND; index++) {
        values all;
        int ours = load(session, candidates[index], &all), fits = ours == (matching != NULL);
        for (ul which = 0; ours && fits && which < matching_count; which++) {
            attribute *has = value_of(&all, matching[which].type);
            fits = has && has->length == matching[which].length && !memcmp(has->value, matching[which].value, has->length);
        }
        if (fits) now->found[now->found_count++] = candidates[index];
    }
    return code;
}

static ul find_init(ul session, attribute *template, ul count) {
    ul class = CKO_DATA;
    attribute ours[] = {{CKA_CLASS, &class, sizeof class}, {CKA_APPLICATION, (void *)APPLICATION, sizeof APPLICATION}}, nothing = {0};
    pthread_mutex_lock(&guard);
    state *now = state_of(session);
    ul code = !now ? GENERAL : now->finding ? ACTIVE : OK;
    if (!code) {
        now->found_count = now->found_at = 0;
        code = search(session, now, template, count, NULL, 0);
        if (!code) code = search(session, now, ours, 2, count ? template : &nothing, count);
        now->finding = !code;
    }
    pthread_mutex_unlock(&guard);
    return code;
}
static ul find(ul session, ul *objects, ul most, ul *count) {
    pthread_mutex_lock(&guard);
    state *now = state_of(session);
    ul code = now && now->finding ? OK : NOT_INITIALIZED;
    if (!code)
        for (*count = 0; *count < most && now->found_at < now->found_count; ) objects[(*count)++] = now->found[now->found_at++];
    pthread_mutex_unlock(&guard);
    return code;
}
static ul find_final(ul session) {
    pthread_mutex_lock(&guard);
    state *now = state_of(session);
    ul code = now && now->finding ? OK : NOT_INITIALIZED;
    if (now) now->finding = 0;
    pthread_mutex_unlock(&guard);
    return code;
}

/* A key that may do this; `usage` is the attribute that says so. */
static ul permitted(ul session, ul object, ul class, ul kind, ul usage, values *all) {
    if (!load(session, object, all)) {
        ul found;
        attribute wanted = {CKA_CLASS, &found, sizeof found};
        return REAL(GET_ATTRIBUTES, session, object, &wanted, 1ul) ? KEY_HANDLE : KEY_TYPE;
    }
    if (number_of(all, CKA_CLASS, 0) != class) return KEY_HANDLE;
    if (number_of(all, CKA_KEY_TYPE, 0) != kind) return KEY_TYPE;
    return number_of(all, usage, 0) ? OK : NOT_PERMITTED;
}

/* C_SignInit and C_VerifyInit. */
static ul begin(int place, ul session, mechanism *how, ul object, ul class, ul usage) {
    values all;
    if (how->number != CKM_ML_DSA) return load(session, object, &all) ? KEY_TYPE : REAL(place, session, how, object);
    additional_context none = {0}, *more = how->parameter ? how->parameter : &none;
    if (how->length != (how->parameter ? sizeof none : 0) || more->hedge > 1 || more->length > 255) return PARAMETER;
    ul code = permitted(session, object, class, CKK_ML_DSA, usage, &all);
    if (code) return code;
    pthread_mutex_lock(&guard);
    state *now = state_of(session);
    if (!now || now->kind) code = now ? ACTIVE : GENERAL;
    else {
        now->kind = place;
        now->object = object;
        now->context_size = more->length;
        if (more->length) memcpy(now->context, more->context, more->length);
    }
    pthread_mutex_unlock(&guard);
    return code;
}
static ul sign_init(ul session, mechanism *how, ul object) { return begin(SIGN_INIT, session, how, object, CKO_PRIVATE_KEY, CKA_SIGN); }
static ul verify_init(ul session, mechanism *how, ul object) { return begin(VERIFY_INIT, session, how, object, CKO_PUBLIC_KEY, CKA_VERIFY); }

/* Takes what was begun; 0 where it was not ours. */
static int begun(ul session, int place, state *copy, int ends) {
    pthread_mutex_lock(&guard);
    state *now = state_of(session);
    int ours = now && now->kind == (ul)place;
    if (ours) {
        copy->object = now->object;
        copy->context_size = now->context_size;
        memcpy(copy->context, now->context, 255);
        if (ends) now->kind = 0;
    }
    pthread_mutex_unlock(&guard);
    return ours;
}

/* What the helper is given besides the key: the context with its length before it, and the message. */
static byte *with_context(state *now, const byte *data, ul size) {
    byte *joined = malloc(1 + now->context_size + size);
    joined[0] = now->context_size;
    memcpy(joined + 1, now->context, now->context_size);
    memcpy(joined + 1 + now->context_size, data, size);
    return joined;
}

static ul sign(ul session, byte *data, ul size, byte *signature, ul *length) {
    state now;
    values all;
    if (!begun(session, SIGN_INIT, &now, 0)) return REAL(SIGN, session, data, size, signature, length);
    ul code = permitted(session, now.object, CKO_PRIVATE_KEY, CKK_ML_DSA, CKA_SIGN, &all);
    ul parameters = number_of(&all, CKA_PARAMETER_SET, 0), needed = code ? 0 : dsa_signature[parameters];
    if (!code && (!signature || *length < needed)) {
        ul given = *length;
        *length = needed;
        return signature && given < needed ? TOO_SMALL : OK;
    }
    begun(session, SIGN_INIT, &now, 1);
    if (code) return code;
    byte *joined = with_context(&now, data, size), made[ROOM];
    ul made_size;
    attribute *seed = value_of(&all, CKA_SEED);
    ul done = ask('s', parameters, seed->value, seed->length, joined, 1 + now.context_size + size, made, &made_size, NULL, NULL);
    free(joined);
    if (!done || made_size > *length) return GENERAL;
    memcpy(signature, made, made_size);
    *length = made_size;
    return OK;
}

static ul verify(ul session, byte *data, ul size, byte *signature, ul length) {
    state now;
    values all;
    if (!begun(session, VERIFY_INIT, &now, 1)) return REAL(VERIFY, session, data, size, signature, length);
    ul code = permitted(session, now.object, CKO_PUBLIC_KEY, CKK_ML_DSA, CKA_VERIFY, &all);
    if (code) return code;
    ul parameters = number_of(&all, CKA_PARAMETER_SET, 0);
    if (length != dsa_signature[parameters]) return SIGNATURE_LENGTH;
    byte *joined = malloc(length + 1 + now.context_size + size), *rest = with_context(&now, data, size);
    memcpy(joined, signature, length);
    memcpy(joined + length, rest, 1 + now.context_size + size);
    attribute *key = value_of(&all, CKA_VALUE);
    ul good = ask('v', parameters, key->value, key->length, joined, length + 1 + now.context_size + size, NULL, NULL, NULL, NULL);
    free(joined);
    free(rest);
    return good ? OK : SIGNATURE_INVALID;
}

/* The shared secret as a key of the real module, by the caller's template. */
static ul secret_key(ul session, attribute *template, ul count, byte *secret, ul size, ul *object) {
    attribute made[MOST];
    ul used = 0;
    if (count > MOST - 1) return ARGUMENTS;
    for (ul index = 0; index < count; index++) {
        if (template[index].type == CKA_VALUE) return READ_ONLY;
        if (template[index].type != CKA_VALUE_LEN) made[used++] = template[index];
        else if (template[index].length != sizeof(ul) || *(ul *)template[index].value != size) return VALUE_INVALID;
    }
    made[used++] = (attribute){CKA_VALUE, secret, size};
    return REAL(CREATE, session, made, used, object);
}

static ul encapsulate(ul session, mechanism *how, ul key, attribute *template, ul count, byte *ciphertext, ul *length, ul *object) {
    values all;
    byte made[ROOM], secret[ROOM];
    ul made_size, secret_size;
    if (how->number != CKM_ML_KEM) return MECHANISM;
    if (how->parameter || how->length) return PARAMETER;
    ul code = permitted(session, key, CKO_PUBLIC_KEY, CKK_ML_KEM, CKA_ENCAPSULATE, &all);
    if (code) return code;
    ul parameters = number_of(&all, CKA_PARAMETER_SET, 0), needed = kem_ciphertext[parameters], given = *length;
    *length = needed;
    if (!ciphertext) return OK;
    if (given < needed) return TOO_SMALL;
    attribute *value = value_of(&all, CKA_VALUE);
    if (!ask('e', parameters, value->value, value->length, "", 0, made, &made_size, secret, &secret_size)) return GENERAL;
    memcpy(ciphertext, made, needed);
    return secret_key(session, template, count, secret, secret_size, object);
}

static ul decapsulate(ul session, mechanism *how, ul key, attribute *template, ul count, byte *ciphertext, ul length, ul *object) {
    values all;
    byte secret[ROOM];
    ul secret_size;
    if (how->number != CKM_ML_KEM) return MECHANISM;
    if (how->parameter || how->length) return PARAMETER;
    ul code = permitted(session, key, CKO_PRIVATE_KEY, CKK_ML_KEM, CKA_DECAPSULATE, &all);
    if (code) return code;
    ul parameters = number_of(&all, CKA_PARAMETER_SET, 0);
    if (length != kem_ciphertext[parameters]) return ENCRYPTED_LENGTH;
    attribute *seed = value_of(&all, CKA_SEED);
    if (!ask('d', parameters, seed->value, seed->length, ciphertext, length, secret, &secret_size, NULL, NULL)) return GENERAL;
    return secret_key(session, template, count, secret, secret_size, object);
}

/* -- what there is -------------------------------------------------------------------------------------------------------------------- */

static const struct { ul number, smallest, largest, flags; } ours[] = {
    {CKM_ML_KEM_KEY_PAIR_GEN, 1184, 1568, 0x10000}, {CKM_ML_KEM, 1184, 1568, 0x30000000}, /* CKF_ENCAPSULATE, CKF_DECAPSULATE */
    {CKM_ML_DSA_KEY_PAIR_GEN, 1312, 2592, 0x10000}, {CKM_ML_DSA, 1312, 2592, 0x2800}};
enum { OURS = sizeof ours / sizeof *ours };

static ul mechanism_list(ul slot, ul *numbers, ul *count) {
    ul room = *count, many = 0, code = REAL(MECHANISM_LIST, slot, NULL, &many);
    if (code) return code;
    *count = many + OURS;
    if (!numbers) return OK;
    if (room < many + OURS) return TOO_SMALL;
    if ((code = REAL(MECHANISM_LIST, slot, numbers, &many))) return code;
    for (int index = 0; index < OURS; index++) numbers[many + index] = ours[index].number;
    return OK;
}
static ul mechanism_info(ul slot, ul number, ul *info) {
    for (int index = 0; index < OURS; index++)
        if (ours[index].number == number) {
            memcpy(info, &ours[index].smallest, 3 * sizeof(ul));
            return OK;
        }
    return REAL(MECHANISM_INFO, slot, number, info);
}
static ul not_supported(void) { return NOT_SUPPORTED; }

static interface interfaces[] = {{"PKCS 11", &list3, 0}, {"PKCS 11", &list2, 0}};

ul C_GetFunctionList(void **out) {
    if (!real) {
        void *library = dlopen(getenv("LATTICE_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
        ul (*get)(void **) = library ? (ul(*)(void **))dlsym(library, "C_GetFunctionList") : NULL;
        if (!get || get((void **)&real)) return GENERAL;
        memcpy(&list2, real, sizeof list2);
        void *changed[][2] = {
            {(void *)FINALIZE, finalize}, {(void *)GET_FUNCTION_LIST, C_GetFunctionList}, {(void *)MECHANISM_LIST, mechanism_list},
            {(void *)MECHANISM_INFO, mechanism_info}, {(void *)CLOSE_SESSION, close_session}, {(void *)CLOSE_ALL, close_all},
            {(void *)CREATE, create}, {(void *)GET_ATTRIBUTES, get_attributes}, {(void *)SET_ATTRIBUTES, set_attributes},
            {(void *)FIND_INIT, find_init}, {(void *)FIND, find}, {(void *)FIND_FINAL, find_final}, {(void *)SIGN_INIT, sign_init},
            {(void *)SIGN, sign}, {(void *)VERIFY_INIT, verify_init}, {(void *)VERIFY, verify}, {(void *)GENERATE_PAIR, generate}};
        for (unsigned index = 0; index < sizeof changed / sizeof *changed; index++) list2.call[(ul)changed[index][0]] = changed[index][1];
        memcpy(list3.call, list2.call, sizeof list2.call);
        for (int place = COUNT_2; place < COUNT_3; place++) list3.call[place] = not_supported;
        ul C_GetInterfaceList(interface *, ul *), C_GetInterface(const char *, byte *, interface **, ul);
        list3.call[INTERFACE_LIST] = C_GetInterfaceList;
        list3.call[INTERFACE] = C_GetInterface;
        list3.call[ENCAPSULATE] = encapsulate;
        list3.call[DECAPSULATE] = decapsulate;
        list3.version[0] = 3;
        list3.version[1] = 2;
    }
    *out = &list2;
    return OK;
}

ul C_GetInterfaceList(interface *room, ul *count) {
    void *unused;
    ul code = C_GetFunctionList(&unused), given = *count;
    if (code) return code;
    *count = 2;
    if (!room) return OK;
    if (given < 2) return TOO_SMALL;
    memcpy(room, interfaces, sizeof interfaces);
    return OK;
}

ul C_GetInterface(const char *name, byte *version, interface **found, ul flags) {
    void *unused;
    ul code = C_GetFunctionList(&unused);
    if (code) return code;
    for (int index = 0; index < 2; index++)
        if ((!name || !strcmp(name, interfaces[index].name)) && !flags &&
            (!version || !memcmp(version, interfaces[index].functions, 2))) {
            *found = &interfaces[index];
            return OK;
        }
    return ARGUMENTS;
}
