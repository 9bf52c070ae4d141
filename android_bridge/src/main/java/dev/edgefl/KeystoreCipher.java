// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import android.security.keystore.KeyGenParameterSpec;
import android.security.keystore.KeyProperties;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.Key;
import java.security.KeyStore;
import java.io.IOException;
import java.util.Arrays;
import javax.crypto.Cipher;
import javax.crypto.KeyGenerator;
import javax.crypto.spec.GCMParameterSpec;

/** Seals examples with an AES-256-GCM key that never leaves Android's keystore. */
public final class KeystoreCipher implements ExampleCipher {
    private static final String STORE = "AndroidKeyStore";
    private static final int NONCE_BYTES = 12;
    private static final int TAG_BITS = 128;

    private final Key key;

    /** @param alias the key's name in the keystore; made if it is not there */
    public KeystoreCipher(String alias) throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(STORE);
        store.load(null);
        Key known = store.getKey(alias, null);
        key = known != null ? known : generated(alias);
    }

    /** Nonce, ciphertext and tag. */
    @Override
    public byte[] seal(byte[] plain, byte[] about) throws GeneralSecurityException {
        Cipher cipher = cipher();
        cipher.init(Cipher.ENCRYPT_MODE, key);
        cipher.updateAAD(about);
        byte[] nonce = cipher.getIV();
        byte[] sealed = cipher.doFinal(plain);
        return ByteBuffer.allocate(nonce.length + sealed.length).put(nonce).put(sealed).array();
    }

    @Override
    public byte[] open(byte[] sealed, byte[] about) throws GeneralSecurityException {
        if (sealed.length < NONCE_BYTES + TAG_BITS / 8) {
            throw new GeneralSecurityException("sealed bytes end early");
        }
        Cipher cipher = cipher();
        cipher.init(Cipher.DECRYPT_MODE, key, new GCMParameterSpec(TAG_BITS, sealed, 0, NONCE_BYTES));
        cipher.updateAAD(about);
        return cipher.doFinal(Arrays.copyOfRange(sealed, NONCE_BYTES, sealed.length));
    }

    private static Cipher cipher() throws GeneralSecurityException {
        return Cipher.getInstance("AES/GCM/NoPadding");
    }

    private static Key generated(String alias) throws GeneralSecurityException {
        KeyGenerator generator = KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, STORE);
        int purposes = KeyProperties.PURPOSE_ENCRYPT | KeyProperties.PURPOSE_DECRYPT;
        generator.init(
                new KeyGenParameterSpec.Builder(alias, purposes)
                        .setKeySize(256)
                        .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
                        .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
                        .build());
        return generator.generateKey();
    }
}
