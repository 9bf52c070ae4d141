// SPDX-License-Identifier: Apache-2.0
package dev.edgefl.test;

import dev.edgefl.ExampleCipher;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** KeystoreCipher's scheme with a key in memory, which a phone's keystore never gives away. */
public final class PlainCipher implements ExampleCipher {
    private final SecretKeySpec key = new SecretKeySpec(new byte[32], "AES");

    @Override
    public byte[] seal(byte[] plain, byte[] about) throws GeneralSecurityException {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(Cipher.ENCRYPT_MODE, key);
        cipher.updateAAD(about);
        byte[] nonce = cipher.getIV();
        byte[] sealed = cipher.doFinal(plain);
        return ByteBuffer.allocate(nonce.length + sealed.length).put(nonce).put(sealed).array();
    }

    @Override
    public byte[] open(byte[] sealed, byte[] about) throws GeneralSecurityException {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(Cipher.DECRYPT_MODE, key, new GCMParameterSpec(128, sealed, 0, 12));
        cipher.updateAAD(about);
        return cipher.doFinal(Arrays.copyOfRange(sealed, 12, sealed.length));
    }
}
