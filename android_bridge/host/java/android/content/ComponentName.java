// SPDX-License-Identifier: Apache-2.0
package android.content;

/** Names a class of an app. */
public final class ComponentName {
    private final String name;

    public ComponentName(Context pkg, Class<?> cls) {
        name = cls.getName();
    }

    public String getClassName() {
        return name;
    }
}
