// SPDX-License-Identifier: Apache-2.0
// Declarations after Apple's documentation of Network, for type-checking on Linux. Nothing here runs.
import Foundation

public struct NWPath {
    public var isExpensive: Bool { fatalError("Network is not here") }
    public var isConstrained: Bool { fatalError("Network is not here") }
}

public final class NWPathMonitor {
    public init() { fatalError("Network is not here") }
    public var currentPath: NWPath { fatalError("Network is not here") }
    public func start(queue: DispatchQueue) { fatalError("Network is not here") }
    public func cancel() { fatalError("Network is not here") }
}

// What Foundation has on Apple's systems only; here, since whoever reads it imports this module too.
extension ProcessInfo {
    public enum ThermalState { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { fatalError("this Foundation has no thermal state") }
    public var isLowPowerModeEnabled: Bool { fatalError("this Foundation has no low power mode") }
}
