package repository

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// RecoverySheet writes down all that opens a repository with the stock program,
// for the day on which there is no database. Whoever holds it can read every
// image: it is encrypted to an age recipient where one is given.
func (rs *Repositories) RecoverySheet(rec backup.RepositoryRecord, recipient string) (backup.Secret, error) {
	if err := check(rec); err != nil {
		return "", err
	}
	at, settings, err := rs.whereabouts(rec)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Recovery sheet of the Kura repository %q", rec.Name)
	line("Made on %s by installation %s. Keep it where neither this server nor its storage is.", rs.cfg.Now().UTC().Format("2006-01-02"), rs.cfg.Installation)
	line("")
	line("kind: %s", rec.Kind)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		line("%s: %s", name, strings.ReplaceAll(strings.TrimSpace(settings[name]), "\n", "\n    "))
	}
	line("repository id: %s", rec.UniqueID)
	line("password: %s", rec.Password.Reveal())
	line("")
	line("With kopia 0.23 or later, which asks for the password, and for what else it misses:")
	line("")
	line("kopia repository connect %s", strings.Join(at.connect, " "))
	line("kopia snapshot list --all")
	line("")
	line("The file restore.txt in each image tells how to get its disks back.")
	if recipient == "" {
		return backup.Secret(b.String()), nil
	}
	return encrypted(b.String(), recipient)
}

// whereabouts returns where a repository lies, references to secrets followed
// where that is possible here.
func (rs *Repositories) whereabouts(rec backup.RepositoryRecord) (place, map[string]string, error) {
	w := wanted{settings: rec.Settings, lookup: rs.cfg.LookupEnv}
	all := maps.Clone(rec.Settings)
	for _, name := range []string{s3AccessKey, s3SecretKey, s3Token, sftpKey, davPassword} {
		if _, ok := all[name]; !ok {
			continue
		}
		v, err := w.secret(name)
		if err != nil {
			return place{}, nil, err
		}
		all[name] = v
	}
	switch rec.Kind {
	case KindS3:
		return s3Place(rec.Settings), all, nil
	case KindSFTP:
		return sftpPlace(rec.Settings), all, nil
	case KindWebDAV:
		return davPlace(rec.Settings), all, nil
	}
	return folderPlace(rec.Settings[settingPath]), all, nil
}

// CheckRecipient refuses what no sheet can be encrypted to; "" is none.
func CheckRecipient(field, recipient string) error {
	if recipient == "" {
		return nil
	}
	_, err := recipientOf(field, recipient)
	return err
}

func recipientOf(field, text string) (*age.X25519Recipient, error) {
	to, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, backup.Errorf(backup.Invalid, field,
			"The age recipient %q cannot be used: it begins with age1 and is what age-keygen prints as the public key.", text).Because(err)
	}
	return to, nil
}

func encrypted(text, recipient string) (backup.Secret, error) {
	to, err := recipientOf("age_recipient", recipient)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, to)
	if err == nil {
		_, err = w.Write([]byte(text))
		err = errors.Join(err, w.Close())
	}
	if err = errors.Join(err, a.Close()); err != nil {
		return "", fmt.Errorf("encrypt recovery sheet: %w", err)
	}
	return backup.Secret(b.String()), nil
}
