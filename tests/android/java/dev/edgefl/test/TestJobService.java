// SPDX-License-Identifier: Apache-2.0
package dev.edgefl.test;

import dev.edgefl.EdgeFl;
import dev.edgefl.TrainJobService;
import java.io.File;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** What an app writes. */
public final class TestJobService extends TrainJobService {
    private final String folder;
    private final String server;
    public final List<String> events = Collections.synchronizedList(new ArrayList<>());

    public TestJobService(String folder, String server) {
        this.folder = folder;
        this.server = server;
        attachBaseContext(new TestContext(folder));
    }

    @Override
    protected String server() {
        return server;
    }

    @Override
    protected void onEvent(String event) {
        events.add(event);
    }

    @Override
    protected EdgeFl device() {
        return new EdgeFl(new File(folder));
    }

    /** The training threads that this JVM has. */
    public List<Thread> threads() {
        List<Thread> found = new ArrayList<>();
        for (Thread one : Thread.getAllStackTraces().keySet()) {
            if (one.getName().equals("edgefl-training")) {
                found.add(one);
            }
        }
        return found;
    }
}
