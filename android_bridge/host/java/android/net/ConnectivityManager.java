// SPDX-License-Identifier: Apache-2.0
package android.net;

/** The network. */
public class ConnectivityManager {
    public boolean isActiveNetworkMetered() {
        return false;
    }
}
