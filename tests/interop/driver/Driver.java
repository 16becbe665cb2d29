import java.io.*;
import java.math.BigInteger;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.*;
import java.util.*;
import java.util.Arrays;
import javax.crypto.spec.*;
import org.bouncycastle.asn1.*;
import org.bouncycastle.asn1.cms.*;
import org.bouncycastle.asn1.cms.ContentInfo;
import org.bouncycastle.asn1.ess.*;
import org.bouncycastle.asn1.pkcs.*;
import org.bouncycastle.asn1.x509.*;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.jcajce.*;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.*;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.util.*;

/**
 * Bouncy Castle at the other end: one line is one request ("op" TAB "name=value" ...), one line the answer ("ok" or "error: ...").
 * Files are named; what is made is written to "out". Everything in DER or BER.
 */
public class Driver {
    static final String BC = "BC";
    final Map<String, String> given;

    Driver(Map<String, String> given) {
        this.given = given;
    }

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        System.out.println(Security.getProvider(BC).getVersionStr());
        for (String line; (line = in.readLine()) != null;) {
            String answer;
            try {
                String[] words = line.split("\t");
                Map<String, String> given = new HashMap<>();
                for (int i = 1; i < words.length; i++) {
                    int at = words[i].indexOf('=');
                    given.put(words[i].substring(0, at), words[i].substring(at + 1));
                }
                new Driver(given).run(words[0]);
                answer = "ok";
            } catch (Throwable failure) {
                Throwable cause = failure.getCause() == null ? failure : failure.getCause();
                answer = ("error: " + failure + " / " + cause.getMessage()).replaceAll("\\s+", " ");
            }
            System.out.println(answer);
        }
    }

    void run(String operation) throws Exception {
        switch (operation) {
            case "sign": sign(); break;
            case "verify": verify(); break;
            case "encrypt": encrypt(); break;
            case "decrypt": decrypt(); break;
            case "certs-only": certsOnly(); break;
            case "list": list(); break;
            case "compress": compress(); break;
            case "uncompress": uncompress(); break;
            case "digest": digest(); break;
            case "authenticate": authenticate(); break;
            case "encrypt-data": encryptData(); break;
            case "message": out(new Messages(this, get("people")).written(file("content"), get("layers").split(","))); break;
            case "read-message": out(new Messages(this, get("people")).read(file("in"), get("layers").split(","))); break;
            default: throw new IllegalArgumentException(operation);
        }
    }

    String get(String name) {
        return given.getOrDefault(name, "");
    }

    byte[] file(String name) throws IOException {
        return Files.readAllBytes(Paths.get(given.get(name)));
    }

    void out(byte[] octets) throws IOException {
        Files.write(Paths.get(given.get("out")), octets);
    }

    CMSTypedData content() throws IOException {
        return new CMSProcessableByteArray(file("content"));
    }

    List<String> people() {
        return Arrays.asList(get("people").split(","));
    }

    X509CertificateHolder holder(String person) throws IOException {
        return new X509CertificateHolder(Files.readAllBytes(Paths.get(get("folder"), person + ".crt")));
    }

    X509Certificate certificate(String person) throws Exception {
        return new JcaX509CertificateConverter().setProvider(BC).getCertificate(holder(person));
    }

    PrivateKey key(String person) throws Exception {
        PrivateKeyInfo info = PrivateKeyInfo.getInstance(Files.readAllBytes(Paths.get(get("folder"), person + ".key")));
        return BouncyCastleProvider.getPrivateKey(info);
    }

    // -- SignedData ------------------------------------------------------------------------------------------------------------------

    /** "people" and "algorithms" side by side; "form" as in rows.py. */
    void sign() throws Exception {
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        DigestCalculatorProvider digests = new JcaDigestCalculatorProviderBuilder().setProvider(BC).build();
        String[] algorithms = get("algorithms").split(",");
        List<X509CertificateHolder> certificates = new ArrayList<>();
        int number = 0;
        for (String person : people()) {
            ContentSigner signer = new JcaContentSignerBuilder(algorithms[number++]).setProvider(BC).build(key(person));
            SignerInfoGeneratorBuilder builder = new SignerInfoGeneratorBuilder(digests);
            if (get("form").equals("no-attributes")) {
                builder.setDirectSignature(true);
            }
            if (get("form").equals("signing-certificate")) {
                byte[] hash = MessageDigest.getInstance("SHA-256").digest(holder(person).getEncoded());
                ASN1EncodableVector attributes = new ASN1EncodableVector();
                attributes.add(new org.bouncycastle.asn1.cms.Attribute(
                    PKCSObjectIdentifiers.id_aa_signingCertificateV2, new DERSet(new SigningCertificateV2(new ESSCertIDv2(hash)))));
                builder.setSignedAttributeGenerator(new DefaultSignedAttributeTableGenerator(new AttributeTable(attributes)));
            }
            SignerInfoGenerator made = get("form").equals("key-id")
                ? builder.build(signer, new JcaX509ExtensionUtils().createSubjectKeyIdentifier(holder(person).getSubjectPublicKeyInfo()).getKeyIdentifier())
                : builder.build(signer, holder(person));
            generator.addSignerInfoGenerator(made);
            certificates.add(holder(person));
        }
        if (!get("form").equals("no-certificates")) {
            generator.addCertificates(new CollectionStore<>(certificates));
        }
        CMSSignedData signed = generator.generate(content(), !get("form").equals("detached"));
        if (get("form").equals("counter-signed")) {
            SignerInformation first = signed.getSignerInfos().iterator().next();
            SignerInformationStore counters = generator.generateCounterSigners(first);
            SignerInformation both = SignerInformation.addCounterSigners(first, counters);
            signed = CMSSignedData.replaceSigners(signed, new SignerInformationStore(both));
        }
        // BER with indefinite lengths, as Bouncy Castle writes.
        out(signed.getEncoded());
    }

    void verify() throws Exception {
        boolean detached = get("form").equals("detached");
        CMSSignedData signed = detached ? new CMSSignedData(content(), file("in")) : new CMSSignedData(file("in"));
        if (signed.getSignerInfos().size() == 0) {
            throw new CMSException("nobody signed");
        }
        for (SignerInformation signer : signed.getSignerInfos()) {
            X509CertificateHolder found = (X509CertificateHolder) signed.getCertificates().getMatches(signer.getSID()).iterator().next();
            ContentVerifierProvider ca = new JcaContentVerifierProviderBuilder().setProvider(BC).build(holder("ca"));
            if (!found.isSignatureValid(ca)) {
                throw new CMSException("a certificate of another authority");
            }
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(BC).build(found))) {
                throw new CMSException("a signature that is wrong");
            }
        }
        out((byte[]) signed.getSignedContent().getContent());
    }

    void certsOnly() throws Exception {
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        for (String person : people()) {
            generator.addCertificate(holder(person));
        }
        out(generator.generate(new CMSAbsentContent()).getEncoded());
    }

    void list() throws Exception {
        if (new CMSSignedData(file("in")).getCertificates().getMatches(null).size() != people().size() + 1) {
            throw new CMSException("other certificates");
        }
        out(file("content"));
    }

    // -- EnvelopedData and AuthEnvelopedData -----------------------------------------------------------------------------------------

    static final Map<String, ASN1ObjectIdentifier> CIPHERS = new HashMap<>();
    static final Map<String, ASN1ObjectIdentifier> AGREEMENTS = new HashMap<>();

    static {
        for (String size : new String[] {"128", "192", "256"}) {
            try {
                for (String mode : new String[] {"CBC", "GCM", "CCM"}) {
                    Object oid = CMSAlgorithm.class.getField("AES" + size + "_" + mode).get(null);
                    CIPHERS.put("aes-" + size + "-" + mode.toLowerCase(), (ASN1ObjectIdentifier) oid);
                }
            } catch (ReflectiveOperationException absent) {
                throw new IllegalStateException(absent);
            }
        }
        CIPHERS.put("3des-cbc", CMSAlgorithm.DES_EDE3_CBC);
        CIPHERS.put("rc2-128-cbc", CMSAlgorithm.RC2_CBC);
        CIPHERS.put("rc2-40-cbc", CMSAlgorithm.RC2_CBC);
        for (String digest : new String[] {"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"}) {
            try {
                AGREEMENTS.put(digest.toLowerCase(), (ASN1ObjectIdentifier) CMSAlgorithm.class.getField("ECDH_" + digest + "KDF").get(null));
                AGREEMENTS.put(digest.toLowerCase() + "+cofactor", (ASN1ObjectIdentifier) CMSAlgorithm.class.getField("ECCDH_" + digest + "KDF").get(null));
            } catch (ReflectiveOperationException absent) {
                throw new IllegalStateException(absent);
            }
        }
        // RFC 8418 §2.2
        AGREEMENTS.put("hkdf-sha256", new ASN1ObjectIdentifier("1.2.840.113549.1.9.16.3.19"));
        AGREEMENTS.put("hkdf-sha512", new ASN1ObjectIdentifier("1.2.840.113549.1.9.16.3.21"));
    }

    static ASN1ObjectIdentifier wrapFor(String cipher) {
        return cipher.startsWith("aes-128") ? CMSAlgorithm.AES128_WRAP : cipher.startsWith("aes-192") ? CMSAlgorithm.AES192_WRAP
            : cipher.startsWith("3des") ? CMSAlgorithm.DES_EDE3_WRAP : CMSAlgorithm.AES256_WRAP;
    }

    static String jca(String digest) {
        return digest.toUpperCase().replace("SHA", "SHA-");
    }

    RecipientInfoGenerator recipient(String person) throws Exception {
        X509Certificate certificate = certificate(person);
        byte[] id = get("form").equals("key-id")
            ? SubjectKeyIdentifier.fromExtensions(holder(person).getExtensions()).getKeyIdentifier() : null;
        if (certificate.getPublicKey().getAlgorithm().equals("RSA")) {
            if (!get("padding").equals("oaep")) {
                return id == null ? new JceKeyTransRecipientInfoGenerator(certificate).setProvider(BC)
                    : new JceKeyTransRecipientInfoGenerator(id, certificate.getPublicKey()).setProvider(BC);
            }
            PSource label = get("label").isEmpty() ? PSource.PSpecified.DEFAULT : new PSource.PSpecified(get("label").getBytes("US-ASCII"));
            OAEPParameterSpec parameters = new OAEPParameterSpec(
                jca(get("digest")), "MGF1", new MGF1ParameterSpec(jca(get("mask"))), label);
            AlgorithmIdentifier oaep = new JcaAlgorithmParametersConverter().getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, parameters);
            return new JceKeyTransRecipientInfoGenerator(certificate, oaep).setProvider(BC);
        }
        PublicKey peer = certificate.getPublicKey();
        KeyPairGenerator pairs = KeyPairGenerator.getInstance(peer.getAlgorithm(), BC);
        if (peer instanceof java.security.interfaces.ECPublicKey) {
            pairs.initialize(((java.security.interfaces.ECPublicKey) peer).getParams());
        }
        KeyPair own = pairs.generateKeyPair();
        JceKeyAgreeRecipientInfoGenerator made = new JceKeyAgreeRecipientInfoGenerator(
            AGREEMENTS.get(get("agreement")), own.getPrivate(), own.getPublic(), wrapFor(get("wrap"))).setProvider(BC);
        return id == null ? made.addRecipient(certificate) : made.addRecipient(id, peer);
    }

    void encrypt() throws Exception {
        ASN1ObjectIdentifier cipher = CIPHERS.get(get("cipher"));
        boolean authenticated = !get("cipher").endsWith("cbc");
        CMSEnvelopedGenerator generator = authenticated ? new CMSAuthEnvelopedDataGenerator() : new CMSEnvelopedDataGenerator();
        if (get("how").equals("password")) {
            generator.addRecipientInfoGenerator(new JcePasswordRecipientInfoGenerator(cipher, get("password").toCharArray()).setProvider(BC)
                .setPRF(PasswordRecipient.PRF.HMacSHA256).setSaltAndIterationCount(new byte[20], 10000));
        } else if (get("how").equals("shared-key")) {
            SecretKeySpec secret = new SecretKeySpec(org.bouncycastle.util.encoders.Hex.decode(get("secret")), "AES");
            generator.addRecipientInfoGenerator(new JceKEKRecipientInfoGenerator(
                org.bouncycastle.util.encoders.Hex.decode(get("secret-id")), secret).setProvider(BC));
        } else {
            for (String person : people()) {
                generator.addRecipientInfoGenerator(recipient(person));
            }
        }
        JceCMSContentEncryptorBuilder builder = get("cipher").startsWith("rc2")
            ? new JceCMSContentEncryptorBuilder(cipher, get("cipher").startsWith("rc2-40") ? 40 : 128) : new JceCMSContentEncryptorBuilder(cipher);
        OutputEncryptor encryptor = builder.setProvider(BC).build();
        if (authenticated) {
            out(((CMSAuthEnvelopedDataGenerator) generator).generate(content(), (OutputAEADEncryptor) encryptor).getEncoded());
        } else {
            out(((CMSEnvelopedDataGenerator) generator).generate(content(), encryptor).getEncoded());
        }
    }

    void decrypt() throws Exception {
        boolean authenticated = !get("cipher").endsWith("cbc");
        RecipientInformationStore recipients = authenticated ? new CMSAuthEnvelopedData(file("in")).getRecipientInfos()
            : new CMSEnvelopedData(file("in")).getRecipientInfos();
        for (String person : people()) {
            RecipientId id = certificate(person).getPublicKey().getAlgorithm().equals("RSA")
                ? new JceKeyTransRecipientId(certificate(person)) : new JceKeyAgreeRecipientId(certificate(person));
            RecipientInformation found = recipients.get(id);
            if (found == null) {
                throw new CMSException("no recipient " + person);
            }
            Recipient key;
            if (found instanceof KeyTransRecipientInformation) {
                key = authenticated ? new JceKeyTransAuthEnvelopedRecipient(key(person)).setProvider(BC)
                    : new JceKeyTransEnvelopedRecipient(key(person)).setProvider(BC);
            } else if (authenticated) {
                throw new CMSException("Bouncy Castle has no recipient of key agreement for AuthEnvelopedData");
            } else {
                key = new JceKeyAgreeEnvelopedRecipient(key(person)).setProvider(BC);
            }
            out(found.getContent(key));
        }
    }

    // -- other content types ---------------------------------------------------------------------------------------------------------

    void compress() throws Exception {
        out(new CMSCompressedDataGenerator().generate(content(), new ZlibCompressor()).getEncoded());
    }

    void uncompress() throws Exception {
        out(new CMSCompressedData(file("in")).getContent(new ZlibExpanderProvider()));
    }

    void digest() throws Exception {
        AlgorithmIdentifier algorithm = new AlgorithmIdentifier(org.bouncycastle.asn1.nist.NISTObjectIdentifiers.id_sha256);
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(file("content"));
        ContentInfo inside = new ContentInfo(CMSObjectIdentifiers.data, new BEROctetString(file("content")));
        out(new ContentInfo(CMSObjectIdentifiers.digestedData, new DigestedData(algorithm, inside, hash)).getEncoded());
    }

    void authenticate() throws Exception {
        CMSAuthenticatedDataGenerator generator = new CMSAuthenticatedDataGenerator();
        for (String person : people()) {
            generator.addRecipientInfoGenerator(recipient(person));
        }
        out(generator.generate(content(), new JceCMSMacCalculatorBuilder(CMSAlgorithm.DES_EDE3_CBC).setProvider(BC).build()).getEncoded());
    }

    void encryptData() throws Exception {
        SecretKeySpec secret = new SecretKeySpec(org.bouncycastle.util.encoders.Hex.decode(get("secret")), "AES");
        OutputEncryptor encryptor = new FixedKey(secret);
        out(new CMSEncryptedDataGenerator().generate(content(), encryptor).toASN1Structure().getEncoded());
    }

    /** AES-CBC under a key that both sides have: the builder of Bouncy Castle draws its own. */
    static class FixedKey implements OutputEncryptor {
        final SecretKeySpec secret;
        final byte[] iv = new byte[16];

        FixedKey(SecretKeySpec secret) {
            this.secret = secret;
            new SecureRandom().nextBytes(iv);
        }

        public AlgorithmIdentifier getAlgorithmIdentifier() {
            return new AlgorithmIdentifier(CMSAlgorithm.AES256_CBC, new DEROctetString(iv));
        }

        public OutputStream getOutputStream(OutputStream under) {
            try {
                javax.crypto.Cipher cipher = javax.crypto.Cipher.getInstance("AES/CBC/PKCS5Padding", BC);
                cipher.init(javax.crypto.Cipher.ENCRYPT_MODE, secret, new IvParameterSpec(iv));
                return new javax.crypto.CipherOutputStream(under, cipher);
            } catch (GeneralSecurityException broken) {
                throw new IllegalStateException(broken);
            }
        }

        public GenericKey getKey() {
            return new JceGenericKey(getAlgorithmIdentifier(), secret);
        }
    }
}
