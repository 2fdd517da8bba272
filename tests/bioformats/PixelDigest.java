import java.io.File;
import java.security.MessageDigest;
import java.util.Arrays;
import loci.common.DebugTools;
import loci.formats.FormatTools;
import loci.formats.ImageReader;

/**
 * Opens each file named on the command line with Bio-Formats, as OMERO does, and prints one JSON line for it; without
 * any, each that standard input names, a line each, until that ends.
 */
public class PixelDigest {
    private static final int STRIP_BYTES = 16 << 20;

    public static void main(String[] files) throws Exception {
        java.io.PrintStream out = new java.io.PrintStream(
            new java.io.FileOutputStream(java.io.FileDescriptor.out), true, "UTF-8");
        DebugTools.setRootLevel("OFF");
        for (String file : files) {
            out.println(describe(file));
        }
        java.io.BufferedReader named = new java.io.BufferedReader(new java.io.InputStreamReader(System.in, "UTF-8"));
        for (String file; files.length == 0 && (file = named.readLine()) != null; ) {
            out.println(describe(file));
        }
    }

    private static String describe(String file) {
        // Sets are grouped by setId itself; no upgrade check is made: that is in the command line tools only.
        try (ImageReader reader = new ImageReader()) {
            reader.setFlattenedResolutions(false);  // as OMERO does: a pyramid is one series
            reader.setId(new File(file).getAbsolutePath());
            String[] used = reader.getUsedFiles();
            Arrays.sort(used);
            StringBuilder names = new StringBuilder();
            for (String name : used) {
                names.append(names.length() == 0 ? "" : ", ").append(quote(name));
            }
            return "{\"file\": " + quote(file) + ", \"format\": " + quote(reader.getFormat())
                + ", \"usedFiles\": [" + names + "], \"seriesCount\": " + reader.getSeriesCount()
                + ", \"sha256\": " + quote(digest(reader)) + "}";
        } catch (Throwable error) {
            return "{\"file\": " + quote(file) + ", \"error\": "
                + quote(error.getClass().getName() + ": " + error.getMessage()) + "}";
        }
    }

    /** SHA-256 over the bytes of all planes of all series at all resolutions, in strips of whole rows. */
    private static String digest(ImageReader reader) throws Exception {
        MessageDigest sha = MessageDigest.getInstance("SHA-256");
        for (int series = 0; series < reader.getSeriesCount(); series++) {
            reader.setSeries(series);
            for (int resolution = 0; resolution < reader.getResolutionCount(); resolution++) {
                reader.setResolution(resolution);
                addPlanes(reader, sha);
            }
        }
        StringBuilder hex = new StringBuilder();
        for (byte b : sha.digest()) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    private static void addPlanes(ImageReader reader, MessageDigest sha) throws Exception {
        int width = reader.getSizeX();
        int height = reader.getSizeY();
        int pixelBytes = FormatTools.getBytesPerPixel(reader.getPixelType()) * reader.getRGBChannelCount();
        int rows = Math.max(1, Math.min(height, STRIP_BYTES / (width * pixelBytes)));
        for (int plane = 0; plane < reader.getImageCount(); plane++) {
            for (int y = 0; y < height; y += rows) {
                sha.update(reader.openBytes(plane, 0, y, width, Math.min(rows, height - y)));
            }
        }
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : String.valueOf(text).toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < 0x20) {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
