// Java's HttpClient through a proxy: prints `ok` and the number of checks. Run as a single file.

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Arrays;
import java.util.stream.IntStream;

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
            var client = HttpClient.newBuilder().version(version).build();
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

    static HttpRequest get(String uri) {
        return HttpRequest.newBuilder(URI.create(uri)).build();
    }
}
