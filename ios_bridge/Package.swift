// swift-tools-version:5.9
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

// On Apple's systems Python comes from the app's Python.xcframework. Elsewhere it comes from the system's packages,
// and Apple's frameworks are declared, not implemented, so that what uses them is at least type-checked.
#if os(Linux)
let declared = ["CoreML", "BackgroundTasks", "Network", "UIKit"]
// The sample; an app copies the file. It is a target so that it compiles, where UIKit is declared.
let sample: [Target] = [
    .target(
        name: "ActivitySample", dependencies: ["EdgeFl", "EdgeFlApple"], path: "App",
        exclude: ["Info.plist", "PrivacyInfo.xcprivacy"])
]
#else
let declared: [String] = []
let sample: [Target] = []
#endif

let package = Package(
    name: "EdgeFl",
    platforms: [.iOS(.v15), .macOS(.v13)],
    products: [
        .library(name: "EdgeFl", targets: ["EdgeFl"]),
        .library(name: "EdgeFlApple", targets: ["EdgeFlApple"]),
    ],
    targets: [
        .systemLibrary(name: "CPython", pkgConfig: "python3-embed", providers: [.apt(["python3-dev"])]),
        .target(name: "EdgeFl", dependencies: ["CPython"]),
        .target(
            name: "EdgeFlApple",
            dependencies: [.target(name: "EdgeFl")] + declared.map { .target(name: $0) }),
        .testTarget(name: "EdgeFlTests", dependencies: ["EdgeFl"]),
        .testTarget(name: "EdgeFlAppleTests", dependencies: ["EdgeFl", "EdgeFlApple"]),
    ] + sample + declared.map { .target(name: $0, path: "Stubs/\($0)") }
)
