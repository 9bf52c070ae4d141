// SPDX-License-Identifier: Apache-2.0
package org.tensorflow.lite;

/** Types of tensors. */
public enum DataType {
    FLOAT32, INT32, UINT8, INT64, STRING, BOOL, INT16, INT8
}
