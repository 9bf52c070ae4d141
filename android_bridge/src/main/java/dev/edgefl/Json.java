// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** As much JSON as the seam needs: strict, no duplicate keys, bounded depth. The JVM has none of its own. */
final class Json {
    private static final int MAX_DEPTH = 16;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Objects are Maps, lists Lists, whole numbers Longs, others Doubles. */
    static Object parse(byte[] utf8) {
        String text;
        try {
            text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(utf8)).toString();
        } catch (CharacterCodingException exc) {
            throw new PackException("JSON that is not UTF-8");
        }
        Json json = new Json(text);
        Object value = json.value(0);
        json.space();
        if (json.at != text.length()) {
            throw json.wrong("something after its end");
        }
        return value;
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> object(Object value) {
        if (!(value instanceof Map)) {
            throw new PackException("expected a JSON object");
        }
        return (Map<String, Object>) value;
    }

    /** A list of at most so many whole numbers that are not negative. */
    static long[] integers(Object value, int most) {
        if (!(value instanceof List) || ((List<?>) value).size() > most) {
            throw new PackException("expected a list of at most " + most + " whole numbers");
        }
        List<?> items = (List<?>) value;
        long[] numbers = new long[items.size()];
        for (int i = 0; i < numbers.length; i++) {
            Object item = items.get(i);
            if (!(item instanceof Long) || (Long) item < 0 || (Long) item > Integer.MAX_VALUE) {
                throw new PackException("expected a whole number from 0 to 2147483647, found " + item);
            }
            numbers[i] = (Long) item;
        }
        return numbers;
    }

    /** Appends text as Python's json writes it without escaping what is not ASCII. */
    static void quote(StringBuilder out, String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            int plain = "\"\\\n\r\t\b\f".indexOf(c);
            if (plain >= 0) {
                out.append('\\').append("\"\\nrtbf".charAt(plain));
            } else if (c < 0x20) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }

    private Object value(int depth) {
        if (depth > MAX_DEPTH) {
            throw wrong("more than " + MAX_DEPTH + " levels");
        }
        space();
        char c = peek();
        if (c == '{') {
            return map(depth);
        }
        if (c == '[') {
            return list(depth);
        }
        if (c == '"') {
            return string();
        }
        if (c == 't' || c == 'f' || c == 'n') {
            return word();
        }
        return number();
    }

    private Map<String, Object> map(int depth) {
        Map<String, Object> found = new LinkedHashMap<>();
        at++;
        space();
        if (skip('}')) {
            return found;
        }
        do {
            space();
            String key = string();
            space();
            expect(':');
            if (found.containsKey(key)) {
                throw wrong("key '" + key + "' more than once");
            }
            found.put(key, value(depth + 1));
            space();
        } while (skip(','));
        expect('}');
        return found;
    }

    private List<Object> list(int depth) {
        List<Object> found = new ArrayList<>();
        at++;
        space();
        if (skip(']')) {
            return found;
        }
        do {
            found.add(value(depth + 1));
            space();
        } while (skip(','));
        expect(']');
        return found;
    }

    private String string() {
        expect('"');
        StringBuilder out = new StringBuilder();
        while (peek() != '"') {
            char c = text.charAt(at++);
            if (c < 0x20) {
                throw wrong("a control character in text");
            }
            out.append(c == '\\' ? escape() : c);
        }
        at++;
        return out.toString();
    }

    private char escape() {
        char c = peek();
        at++;
        int plain = "\"\\/nrtbf".indexOf(c);
        if (plain >= 0) {
            return "\"\\/\n\r\t\b\f".charAt(plain);
        }
        if (c != 'u' || at + 4 > text.length()) {
            throw wrong("an unknown escape");
        }
        String digits = text.substring(at, at + 4);
        if (!digits.matches("[0-9a-fA-F]{4}")) {
            throw wrong("an unknown escape");
        }
        at += 4;
        return (char) Integer.parseInt(digits, 16);
    }

    private Object word() {
        String[] words = {"true", "false", "null"};
        Object[] values = {true, false, null};
        for (int i = 0; i < words.length; i++) {
            if (text.startsWith(words[i], at)) {
                at += words[i].length();
                return values[i];
            }
        }
        throw wrong("an unknown word");
    }

    private Object number() {
        int start = at;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String digits = text.substring(start, at);
        if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) {
            throw wrong("no value");
        }
        try {
            return digits.matches("-?[0-9]+") ? (Object) Long.valueOf(digits) : Double.valueOf(digits);
        } catch (NumberFormatException exc) {
            throw wrong("a number out of range");
        }
    }

    private void space() {
        while (at < text.length() && " \t\n\r".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char peek() {
        if (at >= text.length()) {
            throw wrong("its end");
        }
        return text.charAt(at);
    }

    private boolean skip(char c) {
        boolean there = at < text.length() && text.charAt(at) == c;
        at += there ? 1 : 0;
        return there;
    }

    private void expect(char c) {
        if (!skip(c)) {
            throw wrong("no '" + c + "'");
        }
    }

    private PackException wrong(String what) {
        return new PackException("JSON has " + what + " at character " + at);
    }
}
