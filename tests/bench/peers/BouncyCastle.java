import java.io.*;
import java.lang.management.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.util.*;
import org.bouncycastle.asn1.pkcs.*;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.jcajce.*;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.*;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.util.*;

/** Bouncy Castle: "BouncyCastle OPERATION FOLDER SECONDS" warms up for three seconds, then prints messages and CPU seconds of its thread. */
public class BouncyCastle {
    interface Operation { byte[] run() throws Exception; }

    static final String BC = "BC";

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        Path folder = Paths.get(arguments[1]);
        byte[] plain = Files.readAllBytes(folder.resolve("plain"));
        byte[] signed = Files.readAllBytes(folder.resolve("signed.der"));
        X509CertificateHolder holder = new X509CertificateHolder(Files.readAllBytes(folder.resolve("alice.der")));
        X509Certificate certificate = new JcaX509CertificateConverter().setProvider(BC).getCertificate(holder);
        PrivateKey key = BouncyCastleProvider.getPrivateKey(PrivateKeyInfo.getInstance(Files.readAllBytes(folder.resolve("alice.key.der"))));
        DigestCalculatorProvider digests = new JcaDigestCalculatorProviderBuilder().setProvider(BC).build();
        CMSTypedData content = new CMSProcessableByteArray(plain);
        Operation operation;
        switch (arguments[0]) {
            case "sign":
                operation = () -> {
                    CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
                    ContentSigner signer = new JcaContentSignerBuilder("SHA256withRSA").setProvider(BC).build(key);
                    generator.addSignerInfoGenerator(new SignerInfoGeneratorBuilder(digests).build(signer, holder));
                    generator.addCertificates(new CollectionStore<>(List.of(holder)));
                    return generator.generate(content, false).getEncoded();
                };
                break;
            case "verify":
                operation = () -> {
                    CMSSignedData data = new CMSSignedData(content, signed);
                    for (SignerInformation signer : data.getSignerInfos().getSigners()) {
                        X509CertificateHolder found = (X509CertificateHolder) data.getCertificates().getMatches(signer.getSID()).iterator().next();
                        if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(BC).build(found))) {
                            throw new IllegalStateException("not verified");
                        }
                    }
                    return plain;
                };
                break;
            case "encrypt":
                operation = () -> {
                    CMSAuthEnvelopedDataGenerator generator = new CMSAuthEnvelopedDataGenerator();
                    generator.addRecipientInfoGenerator(new JceKeyTransRecipientInfoGenerator(certificate).setProvider(BC));
                    OutputAEADEncryptor encryptor =
                        (OutputAEADEncryptor) new JceCMSContentEncryptorBuilder(CMSAlgorithm.AES256_GCM).setProvider(BC).build();
                    return generator.generate(content, encryptor).getEncoded();
                };
                break;
            default:
                byte[] sealed = Files.readAllBytes(folder.resolve("gcm.der"));
                operation = () -> {
                    CMSAuthEnvelopedData data = new CMSAuthEnvelopedData(sealed);
                    RecipientInformation recipient = data.getRecipientInfos().getRecipients().iterator().next();
                    return recipient.getContent(new JceKeyTransAuthEnvelopedRecipient(key).setProvider(BC));
                };
        }
        long warm = System.nanoTime() + 3_000_000_000L;
        while (System.nanoTime() < warm) {
            operation.run();
        }
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        long count = 0, start = threads.getCurrentThreadCpuTime(), end = System.nanoTime() + (long) (Double.parseDouble(arguments[2]) * 1e9);
        while (System.nanoTime() < end) {
            operation.run();
            count++;
        }
        System.out.println(count + " " + (threads.getCurrentThreadCpuTime() - start) / 1e9);
    }
}
