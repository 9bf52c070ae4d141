// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A tensor's type, shape and content, the content little-endian and in C order. */
public final class Tensor {
    /** The layout's codes of element types, and how many bytes an element takes. */
    public enum Type {
        F64(8), F32(4), F16(2), I64(8), I32(4), I16(2), I8(1), U64(8), U32(4), U16(2), U8(1), BOOL(1);

        /** Bytes of one element. */
        public final int size;

        Type(int size) {
            this.size = size;
        }
    }

    public final Type type;
    private final long[] shape;
    private final ByteBuffer content;

    /**
     * @param content from its position to its limit; not copied
     * @throws PackException if the content has not the bytes that type and shape ask for
     */
    public Tensor(Type type, long[] shape, ByteBuffer content) {
        this.type = type;
        this.shape = shape.clone();
        this.content = content.slice().order(ByteOrder.LITTLE_ENDIAN);
        if (bytes(type, shape) != this.content.remaining()) {
            throw new PackException(
                    "a tensor of " + bytes(type, shape) + " bytes has " + this.content.remaining());
        }
    }

    public long[] shape() {
        return shape.clone();
    }

    /** The content, ready to be read; each call gives a view of its own. */
    public ByteBuffer content() {
        return content.duplicate().order(ByteOrder.LITTLE_ENDIAN);
    }

    /** A copy outside Java's heap, as native engines take it. */
    public ByteBuffer direct() {
        ByteBuffer copy = ByteBuffer.allocateDirect(content.remaining()).order(ByteOrder.nativeOrder());
        copy.put(content()).rewind();
        return copy;
    }

    public static Tensor of(float[] values, long... shape) {
        ByteBuffer content = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        content.asFloatBuffer().put(values);
        return new Tensor(Type.F32, shape, content);
    }

    public static Tensor of(int[] values, long... shape) {
        ByteBuffer content = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        content.asIntBuffer().put(values);
        return new Tensor(Type.I32, shape, content);
    }

    static long bytes(Type type, long[] shape) {
        long size = type.size;
        for (long n : shape) {
            size = n == 0 ? 0 : Math.multiplyExact(size, n);
        }
        return size;
    }
}
