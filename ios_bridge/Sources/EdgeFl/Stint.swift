// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One background task's training. The system's own classes stay outside, so that what is decided here is tested.
public enum Stint {
    /// Trains on a thread of its own.
    ///
    /// - Parameters:
    ///   - work: takes part in rounds and returns when there is no more work, or the device is told to stop.
    ///   - again: asks the system for another time; what was cut short is checkpointed and goes on then.
    ///   - ended: tells the system that the task is over, after `again`, and whether it went well.
    public static func run<D: Device>(
        on device: D, work: @escaping (D) throws -> Void, again: @escaping () throws -> Void,
        ended: @escaping (Bool) -> Void
    ) {
        Thread.detachNewThread {
            let done = Result { try work(device) }
            // An app must never die of training; without another time the next launch asks for one.
            try? again()
            if case .success = done {
                ended(true)
            } else {
                ended(false)
            }
        }
    }
}
