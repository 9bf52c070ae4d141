// SPDX-License-Identifier: Apache-2.0
package android.app;

import android.content.ContextWrapper;

/** A service. */
public abstract class Service extends ContextWrapper {
    public Service() {
        super(null);
    }
}
