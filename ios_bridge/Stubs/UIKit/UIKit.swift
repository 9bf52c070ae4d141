// SPDX-License-Identifier: Apache-2.0
// Declarations after Apple's documentation of UIKit and Foundation, for type-checking on Linux. Nothing runs.
import Foundation

public class UIDevice {
    public enum BatteryState { case unknown, unplugged, charging, full }
    public class var current: UIDevice { fatalError("UIKit is not here") }
    public var isBatteryMonitoringEnabled = false
    public var batteryState: BatteryState { fatalError("UIKit is not here") }
    public var batteryLevel: Float { fatalError("UIKit is not here") }
}

// What Foundation has on Apple's systems only.
extension ProcessInfo {
    public enum ThermalState { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { fatalError("this Foundation has no thermal state") }
    public var isLowPowerModeEnabled: Bool { fatalError("this Foundation has no low power mode") }
}
