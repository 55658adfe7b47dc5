package store_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// TestAServerThatStandsStillInATransactionHoldsNobodyUp: it holds the lock of
// all Updates and does not go on. Another server's Update is done soon all the
// same, and when the first goes on, its own is refused and has written nothing.
func TestAServerThatStandsStillInATransactionHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	conf := store.Config{DSN: pgtest.Database(t), Key: key, Migrate: true, Patience: 4 * time.Second}
	still := openConfig(t, conf)
	conf.Patience = time.Minute
	other := openConfig(t, conf)
	inside, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- still.Update(t.Context(), func(tx backup.Tx) error {
			close(inside)
			<-goOn
			return tx.InsertVCenter(t.Context(), &backup.VCenter{Name: "first", Endpoint: "https://v.example"})
		})
	}()
	<-inside
	began := time.Now()
	err := other.Update(t.Context(), func(tx backup.Tx) error {
		return tx.InsertVCenter(t.Context(), &backup.VCenter{Name: "second", Endpoint: "https://v.example"})
	})
	if took := time.Since(began); err != nil || took > 30*time.Second {
		t.Errorf("the other server's Update ended after %s with %v, want well and soon", took, err)
	}
	close(goOn)
	if err := <-done; backup.CodeOf(err) != backup.Unavailable {
		t.Errorf("the Update that stood still ended with %v, want %s", err, backup.Unavailable)
	}
	err = other.View(t.Context(), func(tx backup.Tx) error {
		all, _, err := tx.VCenters(t.Context(), backup.Page{Limit: 10})
		if len(all) != 1 || all[0].Name != "second" {
			t.Errorf("%v are stored, want the second alone", all)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func openConfig(t *testing.T, c store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
