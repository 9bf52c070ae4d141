// SPDX-License-Identifier: Apache-2.0
package dev.edgefl.sample;

import android.content.Context;
import dev.edgefl.EdgeFl;
import dev.edgefl.Tensor;
import dev.edgefl.TrainJobService;
import java.io.File;
import java.util.HashMap;
import java.util.Map;

/** Learns which activity a user is at: everything an app writes besides its own screens. */
public final class ActivityTraining extends TrainJobService {
    private static final int JOB = 1;

    @Override
    protected String server() {
        return "https://fl.example.org";
    }

    @Override
    protected String settings() {
        return "{\"when\": {\"battery\": 40, \"full_power\": true, \"cool\": true, \"per_day\": 2}}";
    }

    /** Once, when the app starts. */
    public static void begin(Context context, EdgeFl device, File bundle) {
        device.collectFor(bundle);
        schedule(context, ActivityTraining.class, JOB);
    }

    /** Whenever the user says what a window of the accelerometer was. */
    public static void confirm(EdgeFl device, float[] window, int activity, String day) {
        Map<String, Tensor> example = new HashMap<>();
        example.put("x", Tensor.of(window, window.length / 3, 3));
        example.put("y", Tensor.of(new int[] {activity}));
        device.add(example, day);
    }

    /** The user's right. */
    public static void forget(EdgeFl device, String day) {
        device.forget(day);
    }
}
