package repository_test

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestARecoverySheetOpensTheRepositoryWithoutUs(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		take(t, s, draft("image-1"), sparse(rng(1), 2000, mib))
		key := must(age.GenerateX25519Identity())(t)
		sealed := must(s.rs.RecoverySheet(s.rec, key.Recipient().String()))(t)
		if strings.Contains(sealed.Reveal(), s.rec.Password.Reveal()) {
			t.Fatal("the encrypted sheet holds the password in clear")
		}
		plain := must(age.Decrypt(armor.NewReader(strings.NewReader(sealed.Reveal())), key))(t)
		text := string(must(io.ReadAll(plain))(t))

		// All that is used from here on stands in the sheet.
		told := map[string]string{}
		var name string
		for _, l := range strings.Split(text, "\n") {
			if more, ok := strings.CutPrefix(l, "    "); ok {
				told[name] += "\n" + more
			} else if k, v, ok := strings.Cut(l, ": "); ok {
				name, told[k] = k, v
			}
		}
		from := peer{told["kind"], told, p.Road}
		st := must(stockStorage(ctx, from))(t)
		config := filepath.Join(t.TempDir(), "kopia.config")
		must(0, repo.Connect(ctx, config, st, told["password"], &repo.ConnectOptions{
			CachingOptions: content.CachingOptions{CacheDirectory: t.TempDir(), ContentCacheSizeBytes: mib, MetadataCacheSizeBytes: mib},
		}))(t)
		r := must(repo.Open(ctx, config, told["password"], &repo.Options{DisableRepositoryLog: true}))(t)
		found := must(r.FindManifests(ctx, map[string]string{"type": "snapshot"}))(t)
		if len(found) != 1 {
			t.Errorf("%d snapshots, want the image", len(found))
		}
		must(0, r.Close(context.WithoutCancel(ctx)))(t)
	})
}

func TestARecoverySheetWantsARightRecipient(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, err := s.rs.RecoverySheet(s.rec, "age1nobody")
	wantInvalid(t, "RecoverySheet()", err, "age_recipient")
	sheet := must(s.rs.RecoverySheet(s.rec, ""))(t)
	if !strings.Contains(sheet.Reveal(), s.rec.Password.Reveal()) || !strings.Contains(sheet.Reveal(), "kopia repository connect filesystem --path '"+s.dir+"'") {
		t.Errorf("sheet = %s, want the password and the command", sheet.Reveal())
	}
	if strings.Contains(sheet.String(), "password") {
		t.Error("a sheet shows itself in messages")
	}
	rec := s.rec
	rec.Kind = "s3"
	rec.Settings = map[string]string{"endpoint": "e", "bucket": "b", "access_key_id": "env:AWS_ID", "secret_access_key": "x"}
	_, err = s.rs.RecoverySheet(rec, "")
	wantCode(t, "RecoverySheet() with a key that is not known here", err, backup.RepositoryUnreachable)
}
