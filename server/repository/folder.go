package repository

import (
	"context"
	"os"
	"path/filepath"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// settingPath is the folder of a KindFilesystem.
const settingPath = "path"

func checkFolder(settings map[string]string) error {
	if err := known(settings, []string{settingPath}, nil); err != nil {
		return err
	}
	if !filepath.IsAbs(settings[settingPath]) {
		return backup.Errorf(backup.Invalid, "settings.path", "The path %q must be absolute.", settings[settingPath])
	}
	return nil
}

func folderPlace(path string) place {
	return place{name: path, noun: "folder", field: "settings.path", connect: []string{"filesystem", "--path", quote(path)}}
}

func openFolder(ctx context.Context, w wanted) (storage, error) {
	path := filepath.Clean(w.settings[settingPath])
	if w.create {
		if err := prepareFolder(path); err != nil {
			return nil, err
		}
	}
	s, err := openFileStore(ctx, path, w.create)
	if err != nil {
		return nil, unreachable(path, err).Because(err)
	}
	return s, nil
}

// prepareFolder makes the folder and refuses one in which others keep files.
func prepareFolder(path string) error {
	if err := os.MkdirAll(path, dirMode); err != nil {
		return unreachable(path, err).Because(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return unreachable(path, err).Because(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return refuseOccupied(folderPlace(path), names)
}
