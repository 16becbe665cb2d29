"""M2Crypto, run by the interpreter of Debian's python3-m2crypto: `m2crypto.py OPERATION FOLDER SECONDS` prints messages and CPU seconds."""

import sys
import time
from pathlib import Path

from M2Crypto import BIO, SMIME, X509


def operation(name, folder):
    """What is done to one message, whole S/MIME in and out."""
    plain, signed, sealed = ((folder / one).read_bytes() for one in ("plain", "signed", "cbc"))
    smime = SMIME.SMIME()
    certificate = str(folder / "alice.pem")
    if name in ("sign", "decrypt"):
        smime.load_key(str(folder / "alice.key"), certificate)
    stack = X509.X509_Stack()
    smime.set_x509_stack(stack)

    def sign():
        out, p7 = BIO.MemoryBuffer(), smime.sign(BIO.MemoryBuffer(plain), SMIME.PKCS7_DETACHED, algo="sha256")
        smime.write(out, p7, BIO.MemoryBuffer(plain))
        return out.read()

    def verify():
        p7, content = SMIME.smime_load_pkcs7_bio(BIO.MemoryBuffer(signed))
        return smime.verify(p7, content)

    def encrypt():
        out = BIO.MemoryBuffer()
        smime.write(out, smime.encrypt(BIO.MemoryBuffer(plain)))
        return out.read()

    def decrypt():
        p7, _ = SMIME.smime_load_pkcs7_bio(BIO.MemoryBuffer(sealed))
        return smime.decrypt(p7)

    if name == "verify":
        store = X509.X509_Store()
        store.load_info(str(folder / "ca.pem"))
        smime.set_x509_store(store)
    if name == "encrypt":
        stack.push(X509.load_cert(certificate))
        smime.set_cipher(SMIME.Cipher("aes_256_cbc"))
    return {"sign": sign, "verify": verify, "encrypt": encrypt, "decrypt": decrypt}[name]


def main():
    """Warm up, then count for some seconds."""
    do = operation(sys.argv[1], Path(sys.argv[2]))
    for _ in range(50):
        do()
    count, start, end = 0, time.process_time(), time.perf_counter() + float(sys.argv[3])
    while time.perf_counter() < end:
        do()
        count += 1
    print(count, time.process_time() - start)


main()
