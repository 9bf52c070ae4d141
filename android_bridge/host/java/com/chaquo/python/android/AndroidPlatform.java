// SPDX-License-Identifier: Apache-2.0
package com.chaquo.python.android;

import android.content.Context;
import com.chaquo.python.Python;

/** Python's files in an app's assets. */
public class AndroidPlatform extends Python.Platform {
    public AndroidPlatform(Context context) {}
}
