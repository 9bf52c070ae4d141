// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import java.security.GeneralSecurityException;

/** Authenticated encryption of examples where they lie. Python calls it. */
public interface ExampleCipher {
    /** Encrypted bytes, other ones each time, that belong to {@code about}. */
    byte[] seal(byte[] plain, byte[] about) throws GeneralSecurityException;

    /** What was sealed; throws where a bit of it or of {@code about} is another. */
    byte[] open(byte[] sealed, byte[] about) throws GeneralSecurityException;
}
