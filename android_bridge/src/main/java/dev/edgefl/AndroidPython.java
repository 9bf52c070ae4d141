// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import android.content.Context;
import com.chaquo.python.Python;
import com.chaquo.python.android.AndroidPlatform;
import java.io.File;

/** Starts Python inside an app, once per process. */
public final class AndroidPython {
    private AndroidPython() {}

    /** The device that lives in the app's private files, in the folder {@code edgefl}. */
    public static synchronized EdgeFl start(Context context) {
        if (!Python.isStarted()) {
            Python.start(new AndroidPlatform(context.getApplicationContext()));
        }
        return new EdgeFl(new File(context.getFilesDir(), "edgefl"));
    }
}
