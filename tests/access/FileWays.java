import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/**
 * Reads files in every way that Java has. Takes orders from standard input, words apart by tabs, and answers each with
 * lines of a name, a tab and a value, and a line with a full stop.
 *
 * ways PATH            each way: "sha256 ...", or "STAGE CLASS: MESSAGE" of what was thrown while it opened, mapped or read
 * look PATH            exists, isFile, canRead, length, lastModified
 * hold PATH            maps the file and opens it, and keeps both
 * held PATH            what the mapping and the open file give now
 * drop PATH            lets go of both
 * loop STOP WAY PATH SHA256 ...   reads the files again and again until STOP exists; counts how it ended
 */
public class FileWays {
    private static final String[] WAYS = {"FileInputStream", "RandomAccessFile", "FileChannel", "transferTo", "map"};
    private static final int PIECE = 64 << 10;

    private static final Map<String, MappedByteBuffer> MAPPED = new HashMap<>();
    private static final Map<String, RandomAccessFile> OPEN = new HashMap<>();
    private static PrintStream out;

    /** One reading: how far it came, and the digest of what it read. */
    private static final class Reading {
        private final MessageDigest sha;
        private final File file;
        private String stage = "open";

        Reading(String path) throws Exception {
            sha = MessageDigest.getInstance("SHA-256");
            file = new File(path);
        }

        void run(String way) throws Exception {
            switch (way) {
                case "FileInputStream":
                    try (InputStream in = new FileInputStream(file)) {
                        stage = "read";
                        byte[] piece = new byte[PIECE];
                        for (int n; (n = in.read(piece)) >= 0; ) {
                            sha.update(piece, 0, n);
                        }
                    }
                    return;
                case "RandomAccessFile":
                    try (RandomAccessFile in = new RandomAccessFile(file, "r")) {
                        stage = "read";
                        byte[] all = new byte[(int) in.length()];
                        in.readFully(all);
                        sha.update(all);
                    }
                    return;
                default:
                    try (FileChannel in = FileChannel.open(file.toPath(), StandardOpenOption.READ)) {
                        stage = way.equals("map") ? "map" : "read";
                        readChannel(in, way);
                    }
            }
        }

        private void readChannel(FileChannel in, String way) throws Exception {
            if (way.equals("map")) {
                MappedByteBuffer bytes = in.map(FileChannel.MapMode.READ_ONLY, 0, in.size());
                stage = "read";
                sha.update(bytes.duplicate());
                unmap(bytes);
            } else if (way.equals("transferTo")) {
                OutputStream nowhere = new DigestOutputStream(OutputStream.nullOutputStream(), sha);
                try (WritableByteChannel to = Channels.newChannel(nowhere)) {
                    for (long at = 0, size = in.size(); at < size; ) {
                        long n = in.transferTo(at, size - at, to);
                        if (n <= 0) {
                            throw new IOException("transferTo gave nothing at " + at + " of " + size);
                        }
                        at += n;
                    }
                }
            } else {
                ByteBuffer piece = ByteBuffer.allocateDirect(PIECE);
                while (in.read(piece) >= 0) {
                    piece.flip();
                    sha.update(piece);
                    piece.clear();
                }
            }
        }

        String digest() {
            return hex(sha.digest());
        }
    }

    public static void main(String[] none) throws Exception {
        out = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, "UTF-8");
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = orders.readLine()) != null; ) {
            String[] words = line.split("\t");
            switch (words[0]) {
                case "ways": ways(words[1]); break;
                case "look": look(new File(words[1])); break;
                case "hold": hold(words[1]); break;
                case "held": held(words[1]); break;
                case "drop": drop(words[1]); break;
                case "loop": loop(words); break;
                default: throw new IllegalArgumentException(line);
            }
            out.println(".");
        }
    }

    private static void say(String name, Object value) {
        out.println(name + "\t" + String.valueOf(value).replace('\n', ' ').replace('\t', ' '));
    }

    private static void ways(String path) throws Exception {
        for (String way : WAYS) {
            Reading reading = new Reading(path);
            try {
                reading.run(way);
                say(way, "sha256 " + reading.digest());
            } catch (Throwable error) {
                say(way, reading.stage + " " + error.getClass().getName() + ": " + error.getMessage());
            }
        }
    }

    private static void look(File file) {
        say("exists", file.exists());
        say("isFile", file.isFile());
        say("canRead", file.canRead());
        say("length", file.length());
        say("lastModified", file.lastModified());
    }

    private static void hold(String path) throws Exception {
        RandomAccessFile file = new RandomAccessFile(path, "r");
        OPEN.put(path, file);
        MAPPED.put(path, file.getChannel().map(FileChannel.MapMode.READ_ONLY, 0, file.length()));
        say("held", file.length());
    }

    private static void held(String path) throws Exception {
        MessageDigest sha = MessageDigest.getInstance("SHA-256");
        sha.update(MAPPED.get(path).duplicate());
        say("mapping", "sha256 " + hex(sha.digest()));
        RandomAccessFile file = OPEN.get(path);
        byte[] all = new byte[(int) file.length()];
        file.seek(0);
        file.readFully(all);
        say("open file", "sha256 " + hex(MessageDigest.getInstance("SHA-256").digest(all)));
    }

    private static void drop(String path) throws Exception {
        unmap(MAPPED.remove(path));
        OPEN.remove(path).close();
    }

    private static void loop(String[] words) throws Exception {
        File stop = new File(words[1]);
        Map<String, Integer> ends = new TreeMap<>();
        say("ready", "");
        for (int turn = 0; !stop.exists(); turn++) {
            for (int i = 3; i < words.length; i += 2) {
                String way = words[2].equals("all") ? WAYS[turn % WAYS.length] : words[2];
                ends.merge(end(words[i], words[i + 1], way), 1, Integer::sum);
            }
            Thread.sleep(1);
        }
        ends.forEach(FileWays::say);
    }

    /** How one reading ended: "right", "refused ERRNO'S TEXT" where it did not open, or what was wrong. */
    private static String end(String path, String sha256, String way) throws Exception {
        Reading reading = new Reading(path);
        try {
            reading.run(way);
        } catch (FileNotFoundException error) {
            if (reading.stage.equals("open")) {
                return "refused " + error.getMessage().replace(path + " (", "").replace(")", "");
            }
            return "wrong: " + way + " " + reading.stage + " " + error;
        } catch (FileSystemException error) {
            return ("open".equals(reading.stage) ? "refused " : "wrong: " + way + " ") + error.getReason();
        } catch (Throwable error) {
            return "wrong: " + way + " " + reading.stage + " " + error;
        }
        String found = reading.digest();
        return found.equals(sha256) ? "right" : "wrong: " + way + " " + found + " of " + path;
    }

    /** Java keeps a mapping until its garbage is collected, and what is mapped is open: it could not be evicted. */
    private static void unmap(MappedByteBuffer bytes) throws Exception {
        java.lang.reflect.Field field = sun.misc.Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        ((sun.misc.Unsafe) field.get(null)).invokeCleaner(bytes);
    }

    private static String hex(byte[] digest) {
        StringBuilder hex = new StringBuilder();
        for (byte b : digest) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }
}
