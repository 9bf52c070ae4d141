// SPDX-License-Identifier: Apache-2.0
// Declarations after Apple's documentation of UIKit, for type-checking on Linux. Nothing runs.
import Foundation

public class UIDevice {
    public enum BatteryState { case unknown, unplugged, charging, full }
    public class var current: UIDevice { fatalError("UIKit is not here") }
    public var isBatteryMonitoringEnabled = false
    public var batteryState: BatteryState { fatalError("UIKit is not here") }
    public var batteryLevel: Float { fatalError("UIKit is not here") }
}
