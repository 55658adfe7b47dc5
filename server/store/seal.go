package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// box encrypts what must not be readable in the database or its backups:
// AES-256-GCM with the table, column and row as additional data, so that a
// sealed text cannot be put in another place.
type box struct{ aead cipher.AEAD }

// sealVersion tells how a sealed text was made.
const sealVersion = "1:"

func newBox(key []byte) (box, error) {
	if len(key) != 32 {
		return box{}, backup.Errorf(backup.Invalid, "key_file", "The installation's key has 32 bytes, got %d.", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return box{}, fmt.Errorf("installation's key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return box{}, fmt.Errorf("installation's key: %w", err)
	}
	return box{aead}, nil
}

// place is where a sealed text belongs.
func place(table, column, row string) []byte {
	return []byte(table + "\x00" + column + "\x00" + row)
}

func (b box) seal(plain string, at []byte) string {
	return sealVersion + base64.StdEncoding.EncodeToString(b.aead.Seal(nil, nil, []byte(plain), at))
}

var errSeal = errors.New("sealed text does not fit the installation's key and its place")

func (b box) open(sealed string, at []byte) (string, error) {
	text, ok := strings.CutPrefix(sealed, sealVersion)
	if !ok {
		return "", errSeal
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", errSeal
	}
	plain, err := b.aead.Open(nil, nil, raw, at)
	if err != nil {
		return "", errSeal
	}
	return string(plain), nil
}

// keyCheck is the setting that tells whether the key is the right one.
const keyCheck = "key_check"

// checkKey refuses a key that the database's secrets were not encrypted with,
// before anything is written with it.
func (db *DB) checkKey(ctx context.Context) error {
	at := place("setting", "value", keyCheck)
	if err := db.addSetting(ctx, keyCheck, db.box.seal(rand.Text(), at)); err != nil {
		return err
	}
	sealed, _, err := db.Setting(ctx, keyCheck)
	if err != nil {
		return err
	}
	if _, err := db.box.open(sealed, at); err != nil {
		return backup.Errorf(backup.Invalid, "key_file",
			"The installation's key is not the one that this database's secrets were encrypted with. Start with the key file that belongs to the database (kura.key of its data directory).").Because(err)
	}
	return nil
}
