import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import javax.mail.Session;
import javax.mail.internet.*;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.mail.smime.*;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.util.CollectionStore;

/** S/MIME messages, by Bouncy Castle's mail library and javax.mail: layers are put around an entity, and taken off a message. */
class Messages {
    final Driver driver;
    final String person;

    Messages(Driver driver, String person) {
        this.driver = driver;
        this.person = person;
    }

    /** "layers" from the inside out; the entity is the file "content". */
    byte[] written(byte[] entity, String[] layers) throws Exception {
        MimeBodyPart part = new MimeBodyPart(new ByteArrayInputStream(entity));
        for (String layer : layers) {
            part = around(part, layer);
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        part.writeTo(out);
        return out.toByteArray();
    }

    MimeBodyPart around(MimeBodyPart part, String layer) throws Exception {
        if (layer.equals("signed") || layer.equals("opaque")) {
            SMIMESignedGenerator generator = new SMIMESignedGenerator();
            generator.addSignerInfoGenerator(new JcaSimpleSignerInfoGeneratorBuilder().setProvider(Driver.BC)
                .build("SHA256withRSA", driver.key(person), driver.certificate(person)));
            generator.addCertificates(new CollectionStore<X509CertificateHolder>(Collections.singletonList(driver.holder(person))));
            if (layer.equals("opaque")) {
                return generator.generateEncapsulated(part);
            }
            // What javax.mail has not written it has no octets of.
            MimeMessage message = new MimeMessage((Session) null);
            message.setContent(generator.generate(part));
            message.saveChanges();
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            message.writeTo(out, new String[] {"Message-ID", "MIME-Version"});
            return new MimeBodyPart(new ByteArrayInputStream(out.toByteArray()));
        }
        if (layer.equals("compressed")) {
            return new SMIMECompressedGenerator().generate(part, new ZlibCompressor());
        }
        SMIMEEnvelopedGenerator generator = new SMIMEEnvelopedGenerator();
        generator.addRecipientInfoGenerator(new JceKeyTransRecipientInfoGenerator(driver.certificate(person)).setProvider(Driver.BC));
        return generator.generate(part, new JceCMSContentEncryptorBuilder(CMSAlgorithm.AES256_CBC).setProvider(Driver.BC).build());
    }

    /** The entity within all layers; the last of "layers" is the outermost one. */
    byte[] read(byte[] message, String[] layers) throws Exception {
        MimeBodyPart part = new MimeBodyPart(new ByteArrayInputStream(message));
        for (int at = layers.length - 1; at >= 0; at--) {
            part = within(part, layers[at]);
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        part.writeTo(out);
        return out.toByteArray();
    }

    MimeBodyPart within(MimeBodyPart part, String layer) throws Exception {
        switch (layer) {
            case "signed":
                SMIMESigned detached = new SMIMESigned((MimeMultipart) part.getContent());
                check(detached);
                return detached.getContent();
            case "opaque":
                SMIMESigned opaque = new SMIMESigned(part);
                check(opaque);
                return opaque.getContent();
            case "compressed":
                return SMIMEUtil.toMimeBodyPart(new SMIMECompressed(part).getContent(new ZlibExpanderProvider()));
            case "auth-enveloped":
                RecipientInformation authenticated = new CMSAuthEnvelopedData(part.getInputStream()).getRecipientInfos().iterator().next();
                return SMIMEUtil.toMimeBodyPart(
                    authenticated.getContent(new JceKeyTransAuthEnvelopedRecipient(driver.key(person)).setProvider(Driver.BC)));
            default:
                RecipientInformation found = new SMIMEEnveloped(part).getRecipientInfos().iterator().next();
                return SMIMEUtil.toMimeBodyPart(found.getContent(new JceKeyTransEnvelopedRecipient(driver.key(person)).setProvider(Driver.BC)));
        }
    }

    void check(CMSSignedData signed) throws Exception {
        for (SignerInformation signer : signed.getSignerInfos()) {
            X509CertificateHolder found = (X509CertificateHolder) signed.getCertificates().getMatches(signer.getSID()).iterator().next();
            if (!found.isSignatureValid(new JcaContentVerifierProviderBuilder().setProvider(Driver.BC).build(driver.holder("ca")))) {
                throw new CMSException("a certificate of another authority");
            }
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(Driver.BC).build(found))) {
                throw new CMSException("a signature that is wrong");
            }
        }
    }
}
