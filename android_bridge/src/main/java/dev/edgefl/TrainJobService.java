// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Context;
import android.util.Log;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Trains while the phone charges, idles and has a network nobody pays for. An app extends it with its server
 * and engine, names it in the manifest and calls {@link #schedule} once.
 */
public abstract class TrainJobService extends JobService {
    private static final String TAG = "edgefl";

    private final ConcurrentHashMap<Integer, AtomicBoolean> running = new ConcurrentHashMap<>();

    /** The server's URL. */
    protected abstract String server();

    /** A new engine; it is closed when the job ends. */
    protected Engine engine() {
        return new LiteRtEngine(2);
    }

    /** Settings for {@link EdgeFl#takePart}. */
    protected String settings() {
        return "{}";
    }

    /** Told what happens, on the training thread: show a notification, or nothing. */
    protected void onEvent(String event) {}

    /** The device in the app's private files. */
    protected EdgeFl device() {
        return AndroidPython.start(this);
    }

    /**
     * Asks Android to run the service about once a day, and again where it was cut short.
     *
     * @return whether Android took the job
     */
    public static boolean schedule(Context context, Class<? extends TrainJobService> service, int id) {
        JobInfo job =
                new JobInfo.Builder(id, new ComponentName(context, service))
                        .setRequiresCharging(true)
                        .setRequiresDeviceIdle(true)
                        .setRequiredNetworkType(JobInfo.NETWORK_TYPE_UNMETERED)
                        .setPeriodic(TimeUnit.DAYS.toMillis(1))
                        .setPersisted(true)
                        .build();
        JobScheduler scheduler = (JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE);
        return scheduler.schedule(job) == JobScheduler.RESULT_SUCCESS;
    }

    @Override
    public boolean onStartJob(JobParameters job) {
        AtomicBoolean stop = new AtomicBoolean();
        if (running.putIfAbsent(job.getJobId(), stop) != null) {
            return false;
        }
        new Thread(() -> work(job, stop), "edgefl-training").start();
        return true;
    }

    /** Returns at once; training ends within one step, and Android is asked to run the job again. */
    @Override
    public boolean onStopJob(JobParameters job) {
        AtomicBoolean stop = running.get(job.getJobId());
        if (stop != null) {
            stop.set(true);
        }
        return true;
    }

    private void work(JobParameters job, AtomicBoolean stop) {
        try (Engine engine = engine()) {
            AndroidDevice state = new AndroidDevice(this, stop, this::onEvent);
            Log.i(TAG, device().takePart(server(), engine, state, settings()));
        } catch (RuntimeException exc) {
            // An app must never die of training; the next day's job tries again.
            Log.e(TAG, "training ended with an error", exc);
        } finally {
            running.remove(job.getJobId());
            // A stopped job was already told to run again by onStopJob.
            if (!stop.get()) {
                jobFinished(job, false);
            }
        }
    }
}
