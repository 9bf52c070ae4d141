// SPDX-License-Identifier: Apache-2.0
import EdgeFl
import Foundation
import Network

#if canImport(UIKit)
import UIKit
#endif

/// What iOS says about itself. Readings only: whether they allow training is decided in Python.
public final class AppleDevice: Device {
    private let monitor = NWPathMonitor()
    private let lock = NSLock()
    private var told = false
    private let listener: (String) -> Void

    /// - Parameter listener: gets every event, on the training thread.
    public init(listener: @escaping (String) -> Void = { _ in }) {
        self.listener = listener
        #if canImport(UIKit)
        UIDevice.current.isBatteryMonitoringEnabled = true
        #endif
        monitor.start(queue: DispatchQueue(label: "edgefl.network"))
    }

    deinit {
        monitor.cancel()
    }

    /// Ends training within one step; may be called from any thread.
    public func stop() {
        lock.lock()
        told = true
        lock.unlock()
    }

    public func reading() -> String {
        let path = monitor.currentPath, info = ProcessInfo.processInfo
        var fields = [
            #""metered":\#(path.isExpensive || path.isConstrained)"#,
            #""power_save":\#(info.isLowPowerModeEnabled)"#,
            #""thermal":"\#(word(info.thermalState))""#,
        ]
        // A Mac has no UIKit: there, what is left out cannot be read.
        #if canImport(UIKit)
        let device = UIDevice.current
        if device.batteryState != .unknown {
            fields.append(#""charging":\#(device.batteryState != .unplugged)"#)
            fields.append(#""battery":\#(Int(device.batteryLevel * 100))"#)
        }
        #endif
        let home = URL(fileURLWithPath: NSHomeDirectory())
        if let free = try? home.resourceValues(forKeys: [.volumeAvailableCapacityKey]),
            let bytes = free.volumeAvailableCapacity
        {
            fields.append(#""free_storage":\#(bytes)"#)
        }
        return "{\(fields.joined(separator: ","))}"
    }

    public func stopped() -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return told
    }

    public func notify(_ event: String) {
        listener(event)
    }

    private func word(_ state: ProcessInfo.ThermalState) -> String {
        switch state {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "critical"
        }
    }
}
