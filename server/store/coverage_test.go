package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestGoodImagesAreToldByVMAndOnlyOfTheVCenter(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		a, b := backup.VCenter{Name: "a"}, backup.VCenter{Name: "b"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertVCenter(ctx, &a), tx.InsertVCenter(ctx, &b))
		})
		at := func(hours int) time.Time { return c.now().Add(time.Duration(hours) * time.Hour) }
		image := func(id, vm, vcenter string, hours int, status backup.ImageStatus, verified time.Time) backup.Image {
			return backup.Image{ID: id, VCenterID: vcenter, VMID: vm, Status: status, StartedAt: at(hours), PointInTime: at(hours), VerifiedAt: verified}
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertImage(ctx, image("i1", "vm1", a.ID, 1, backup.ImageGood, at(5))), tx.InsertImage(ctx, image("i2", "vm1", a.ID, 2, backup.ImageGood, time.Time{})),
				tx.InsertImage(ctx, image("i3", "vm1", a.ID, 3, backup.ImageDamaged, at(9))), tx.InsertImage(ctx, image("i4", "vm2", a.ID, 1, backup.ImageGood, time.Time{})),
				tx.InsertImage(ctx, image("i5", "vm3", a.ID, 1, backup.ImagePartial, time.Time{})), tx.InsertImage(ctx, image("i6", "vm4", b.ID, 1, backup.ImageGood, time.Time{})))
		})
		got := read(t, db, func(ctx context.Context, tx backup.Tx) (map[string]backup.GoodImage, error) {
			return tx.GoodImages(ctx, a.ID)
		})
		if len(got) != 2 || !got["vm1"].At.Equal(at(2)) || !got["vm1"].VerifiedAt.Equal(at(5)) || !got["vm2"].At.Equal(at(1)) || !got["vm2"].VerifiedAt.IsZero() {
			t.Errorf("good images are %+v", got)
		}
	})
}
