// SPDX-License-Identifier: Apache-2.0
package android.content;

import java.io.File;

/** Hands everything on. */
public class ContextWrapper extends Context {
    private Context base;

    public ContextWrapper(Context base) {
        this.base = base;
    }

    protected void attachBaseContext(Context base) {
        this.base = base;
    }

    @Override
    public Context getApplicationContext() {
        return base.getApplicationContext();
    }

    @Override
    public Object getSystemService(String name) {
        return base.getSystemService(name);
    }

    @Override
    public File getFilesDir() {
        return base.getFilesDir();
    }
}
