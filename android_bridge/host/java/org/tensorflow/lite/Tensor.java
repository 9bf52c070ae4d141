// SPDX-License-Identifier: Apache-2.0
package org.tensorflow.lite;

/** What is known of a tensor. */
public interface Tensor {
    DataType dataType();

    int[] shape();

    int numBytes();
}
