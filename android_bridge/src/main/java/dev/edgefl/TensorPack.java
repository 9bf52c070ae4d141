// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.ArrayList;

/**
 * Named tensors as bytes, in the safetensors layout: an 8-byte little-endian length, a JSON header padded with
 * spaces to a multiple of 8, and the tensors back to back. Names are sorted by code point, so equal tensors
 * give equal bytes: the same as Python's {@code edgefl.tensorfile} and Swift's {@code TensorPack}.
 */
public final class TensorPack {
    static final int MAX_HEADER_BYTES = 16 << 20;
    static final int MAX_TENSORS = 1 << 16;
    static final int MAX_RANK = 16;
    private static final String METADATA = "__metadata__";

    /** UTF-16 sorts some characters otherwise than Python, which sorts code points. */
    static final Comparator<String> BY_CODE_POINT =
            (a, b) -> compare(a.codePoints().toArray(), b.codePoints().toArray());

    private TensorPack() {}

    /**
     * @throws PackException for a reserved name, or more tensors or bytes than the layout holds
     */
    public static byte[] write(Map<String, Tensor> tensors) {
        TreeMap<String, Tensor> sorted = new TreeMap<>(BY_CODE_POINT);
        sorted.putAll(tensors);
        StringBuilder header = new StringBuilder("{");
        long offset = 0;
        for (Map.Entry<String, Tensor> row : sorted.entrySet()) {
            if (row.getKey().equals(METADATA)) {
                throw new PackException("tensor name '" + METADATA + "' is reserved by the layout");
            }
            Tensor tensor = row.getValue();
            long end = offset + tensor.content().remaining();
            header.append(header.length() > 1 ? "," : "");
            Json.quote(header, row.getKey());
            header.append(":{\"dtype\":\"").append(tensor.type).append("\",\"shape\":");
            header.append(Arrays.toString(tensor.shape()).replace(" ", ""));
            header.append(",\"data_offsets\":[").append(offset).append(',').append(end).append("]}");
            offset = end;
        }
        byte[] text = header.append('}').toString().getBytes(StandardCharsets.UTF_8);
        int padded = text.length + Math.floorMod(-text.length, 8);
        if (offset > Integer.MAX_VALUE - 8L - padded) {
            throw new PackException("tensors take " + offset + " bytes, more than an array holds");
        }
        ByteBuffer out = ByteBuffer.allocate((int) (8 + padded + offset)).order(ByteOrder.LITTLE_ENDIAN);
        out.putLong(padded).put(text);
        while (out.position() < 8 + padded) {
            out.put((byte) ' ');
        }
        for (Tensor tensor : sorted.values()) {
            out.put(tensor.content());
        }
        return out.array();
    }

    /**
     * Views into the bytes, sorted by name.
     *
     * @throws PackException if the bytes are not the layout
     */
    public static Map<String, Tensor> read(byte[] data) {
        ByteBuffer all = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
        if (data.length < 8) {
            throw new PackException("a pack has " + data.length + " bytes, its header's length alone takes 8");
        }
        long length = all.getLong();
        if (length < 0 || length > Math.min(MAX_HEADER_BYTES, data.length - 8)) {
            throw new PackException("a pack's header declares " + length + " bytes of " + (data.length - 8));
        }
        Map<String, Object> header = header(data, (int) length);
        int base = 8 + (int) length;
        List<Row> rows = new ArrayList<>();
        for (Map.Entry<String, Object> entry : header.entrySet()) {
            if (!entry.getKey().equals(METADATA)) {
                rows.add(new Row(entry.getKey(), entry.getValue()));
            }
        }
        if (rows.size() > MAX_TENSORS) {
            throw new PackException("a pack has " + rows.size() + " tensors, allowed " + MAX_TENSORS);
        }
        checkCover(rows, data.length - base);
        Map<String, Tensor> found = new TreeMap<>(BY_CODE_POINT);
        for (Row row : rows) {
            ByteBuffer content = ByteBuffer.wrap(data, base + (int) row.start, (int) (row.stop - row.start));
            checkBool(row, content);
            found.put(row.name, new Tensor(row.type, row.shape, content));
        }
        return Collections.unmodifiableMap(new LinkedHashMap<>(found));
    }

    private static Map<String, Object> header(byte[] data, int length) {
        Object value = Json.parse(Arrays.copyOfRange(data, 8, 8 + length));
        if (!(value instanceof Map)) {
            throw new PackException("a pack's header is no JSON object");
        }
        Map<String, Object> header = Json.object(value);
        if (header.containsKey(METADATA)) {
            for (Object text : Json.object(header.get(METADATA)).values()) {
                if (!(text instanceof String)) {
                    throw new PackException("metadata holds values that are no text");
                }
            }
        }
        return header;
    }

    /** Tensors cover the data exactly: no gap to hide bytes in, no overlap, no truncation. */
    private static void checkCover(List<Row> rows, long size) {
        List<Row> inOrder = new ArrayList<>(rows);
        inOrder.sort(Comparator.<Row>comparingLong(row -> row.start).thenComparingLong(row -> row.stop));
        long end = 0;
        for (Row row : inOrder) {
            if (row.start != end) {
                throw new PackException(
                        "tensor '" + row.name + "' starts at byte " + row.start + ", expected " + end);
            }
            end = row.stop;
        }
        if (end != size) {
            throw new PackException("tensors take " + end + " bytes, the pack has " + size + " for them");
        }
    }

    private static void checkBool(Row row, ByteBuffer content) {
        if (row.type == Tensor.Type.BOOL) {
            for (ByteBuffer rest = content.duplicate(); rest.hasRemaining(); ) {
                if ((rest.get() & 0xfe) != 0) {
                    throw new PackException("tensor '" + row.name + "' has truth values beside 0 and 1");
                }
            }
        }
    }

    private static int compare(int[] a, int[] b) {
        for (int i = 0; i < Math.min(a.length, b.length); i++) {
            if (a[i] != b[i]) {
                return Integer.compare(a[i], b[i]);
            }
        }
        return Integer.compare(a.length, b.length);
    }

    /** One tensor's line in the header, in agreement with itself. */
    private static final class Row {
        final String name;
        final Tensor.Type type;
        final long[] shape;
        final long start;
        final long stop;

        Row(String name, Object value) {
            this.name = name;
            Map<String, Object> fields = Json.object(value);
            if (fields.size() != 3) {
                throw new PackException("tensor '" + name + "' has fields " + fields.keySet());
            }
            type = type(fields.get("dtype"));
            shape = Json.integers(fields.get("shape"), MAX_RANK);
            long[] offsets = Json.integers(fields.get("data_offsets"), 2);
            if (offsets.length != 2 || offsets[1] - offsets[0] != size()) {
                throw new PackException("tensor '" + name + "' does not take the bytes it declares");
            }
            start = offsets[0];
            stop = offsets[1];
        }

        private long size() {
            try {
                return Tensor.bytes(type, shape);
            } catch (ArithmeticException exc) {
                throw new PackException("tensor '" + name + "' is larger than any file");
            }
        }

        private Tensor.Type type(Object code) {
            for (Tensor.Type one : Tensor.Type.values()) {
                if (one.name().equals(code)) {
                    return one;
                }
            }
            throw new PackException("tensor '" + name + "' is of type " + code);
        }
    }
}
