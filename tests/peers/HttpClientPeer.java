// Java's HttpClient through a proxy: prints `ok` and the number of checks. Run as a single file.
// Arguments: the base URI; for https the authority's file, the client's certificate and its key, all PEM.

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.stream.IntStream;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class HttpClientPeer {
    static int checks = 0;

    static void check(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
        checks++;
    }

    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        // The default is HTTP/2: it asks to upgrade to h2c on plaintext, which a proxy must ignore.
        for (var version : HttpClient.Version.values()) {
            var builder = HttpClient.newBuilder().version(version);
            if (arguments.length > 1) builder.sslContext(context(arguments));
            var client = builder.build();
            for (int i = 0; i < 30; i++) {
                var answer = client.send(get(base + "/" + i), BodyHandlers.ofString());
                check(answer.body().contains("GET /" + i + " "), "GET");
            }
            var many = IntStream.range(0, 100)
                .mapToObj(i -> client.sendAsync(get(base + "/" + i), BodyHandlers.ofString()))
                .toList();
            for (int i = 0; i < many.size(); i++) {
                check(many.get(i).get().body().contains("GET /" + i + " "), "GET at once");
            }
            byte[] body = new byte[1_000_000];
            for (int i = 0; i < body.length; i++) body[i] = (byte) (i % 251);
            var withLength = HttpRequest.newBuilder(URI.create(base + "/body"))
                .POST(BodyPublishers.ofByteArray(body)).build();
            check(Arrays.equals(client.send(withLength, BodyHandlers.ofByteArray()).body(), body),
                "POST with length");
            var chunked = HttpRequest.newBuilder(URI.create(base + "/body"))
                .POST(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body))).build();
            check(Arrays.equals(client.send(chunked, BodyHandlers.ofByteArray()).body(), body),
                "POST chunked");
            var expecting = HttpRequest.newBuilder(URI.create(base + "/body"))
                .expectContinue(true).POST(BodyPublishers.ofByteArray(body)).build();
            check(Arrays.equals(client.send(expecting, BodyHandlers.ofByteArray()).body(), body),
                "POST with Expect");
            for (String target : new String[] {"/bytes/", "/chunked/", "/close/"}) {
                var answer = client.send(get(base + target + 1_000_000), BodyHandlers.ofByteArray());
                check(answer.body().length == 1_000_000, target);
            }
            check(client.send(get(base + "/status/204"), BodyHandlers.discarding()).statusCode() == 204,
                "204");
        }
        System.out.println("ok " + checks);
        System.exit(0);
    }

    static SSLContext context(String[] arguments) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        store.setCertificateEntry("authority", certificate(arguments[1]));
        byte[] key = Base64.getMimeDecoder()
            .decode(Files.readString(Path.of(arguments[3])).replaceAll("-----.*-----", ""));
        store.setKeyEntry("own",
            KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(key)), new char[0],
            new Certificate[] {certificate(arguments[2])});
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        own.init(store, new char[0]);
        var context = SSLContext.getInstance("TLS");
        context.init(own.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static Certificate certificate(String file) throws Exception {
        try (var in = Files.newInputStream(Path.of(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    static HttpRequest get(String uri) {
        return HttpRequest.newBuilder(URI.create(uri)).build();
    }
}
