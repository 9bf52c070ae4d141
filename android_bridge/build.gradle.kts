// SPDX-License-Identifier: Apache-2.0
// An Android library. Never built here: no Gradle plugin of Android's or Chaquopy's is within reach of these tests.
plugins {
    id("com.android.library")
    id("com.chaquo.python") version "17.0.0"
}

android {
    namespace = "dev.edgefl"
    compileSdk = 35

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        // NumPy's wheels for phones exist for these two; x86_64 is the emulator's.
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

chaquopy {
    defaultConfig {
        // 3.13 is the first whose native libraries suit devices with memory pages of 16 KB.
        version = "3.13"
        pip {
            install("numpy")
            // `make wheels` in the checkout writes it.
            install("../dist/edgefl_train_device-0.1.0-py3-none-any.whl")
        }
    }
}

dependencies {
    api("com.google.ai.edge.litert:litert:1.4.0")
    compileOnly("com.microsoft.onnxruntime:onnxruntime-android:1.23.0")
}
