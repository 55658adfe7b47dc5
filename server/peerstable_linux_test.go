package server_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

var (
	peerNames = []string{resticName, kopiaName, kuraName + "s2", kuraName + "zstd-fastest", rawCopy, rawZstd}
	stepNames = []string{full, unchanged, rereadA, extentsA, rereadB, extentsB, restored}
)

// aim is a ratio of Kura's figure to a peer's that is not to be exceeded.
type aim struct {
	What  string  `json:"what"`
	Most  float64 `json:"most"`
	Ratio float64 `json:"ratio"` // median of the rounds'
	Met   bool    `json:"met"`
	of    func(r round) float64
}

func seconds(f stepFigures) float64 { return f.Seconds }
func grown(f stepFigures) float64   { return f.GrownMiB }

// against divides a figure of Kura's by that of restic.
func against(kura, step, by string, figure func(stepFigures) float64) func(round) float64 {
	return func(r round) float64 { return figure(r[kura][step]) / figure(r[resticName][by]) }
}

func aims() []aim {
	s2, zstd := kuraName+"s2", kuraName+"zstd-fastest"
	return []aim{
		{What: "full, s2: seconds by restic's", Most: 0.24, of: against(s2, full, full, seconds)},
		{What: "full, zstd: seconds by restic's", Most: 0.34, of: against(zstd, full, full, seconds)},
		{What: "full, zstd: repository by restic's", Most: 1.05, of: against(zstd, full, full, grown)},
		{What: "A by extents, s2: seconds by restic's", Most: 1. / 15, of: against(s2, extentsA, rereadA, seconds)},
		{What: "B by extents, s2: seconds by restic's", Most: 1. / 15, of: against(s2, extentsB, rereadB, seconds)},
		{What: "A by reading, s2: seconds by restic's", Most: 1. / 5, of: against(s2, rereadA, rereadA, seconds)},
		{What: "B by reading, s2: seconds by restic's", Most: 1. / 5, of: against(s2, rereadB, rereadB, seconds)},
		{What: "A by extents, s2: growth by restic's", Most: 1, of: against(s2, extentsA, rereadA, grown)},
		{What: "B by extents, s2: growth by restic's", Most: 1, of: against(s2, extentsB, rereadB, grown)},
		{What: "restore, s2: seconds by the faster peer's", Most: 0.55, of: func(r round) float64 {
			return r[s2][restored].Seconds / min(r[resticName][restored].Seconds, r[kopiaName][restored].Seconds)
		}},
	}
}

// medians takes each figure's median over the rounds.
func medians(all []round) round {
	out := round{}
	for _, peer := range peerNames {
		out[peer] = figures{}
		for _, step := range stepNames {
			if _, has := all[0][peer][step]; !has {
				continue
			}
			of := func(figure func(stepFigures) float64) float64 {
				return median(all, func(r round) float64 { return figure(r[peer][step]) })
			}
			out[peer][step] = stepFigures{
				Seconds: of(seconds), GrownMiB: of(grown),
				CPUSeconds: of(func(f stepFigures) float64 { return f.CPUSeconds }),
				MemoryMiB:  of(func(f stepFigures) float64 { return f.MemoryMiB }),
			}
		}
	}
	return out
}

func median(all []round, of func(round) float64) float64 {
	v := make([]float64, len(all))
	for i, r := range all {
		v[i] = of(r)
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func printRound(n int, r round) {
	fmt.Printf("\nround %d: seconds / CPU seconds / memory MiB / growth MiB\n\n", n)
	printFigures(r)
}

func printFigures(r round) {
	fmt.Printf("%-20s", "")
	for _, step := range stepNames {
		fmt.Printf(" %-25s", step)
	}
	fmt.Println()
	for _, peer := range peerNames {
		fmt.Printf("%-20s", peer)
		for _, step := range stepNames {
			text := ""
			if f, has := r[peer][step]; has {
				text = fmt.Sprintf("%.2f / %.1f / %.0f / %.0f", f.Seconds, f.CPUSeconds, f.MemoryMiB, f.GrownMiB)
			}
			fmt.Printf(" %-25s", text)
		}
		fmt.Println()
	}
}

// report prints the medians and the ratios, and writes them to KURA_BENCH_OUT.
func report(b *testing.B, bench *peerBench, all []round) {
	b.Helper()
	m := medians(all)
	fmt.Printf("\n%d MiB (30 %% zero, 45 %% files, of them %d MiB real ones, 25 %% random), medians of %d rounds: "+
		"seconds / CPU seconds / memory MiB / growth MiB\n\n", bench.mib, bench.source.files>>20, len(all))
	printFigures(m)
	fmt.Println()
	told := aims()
	for i := range told {
		a := &told[i]
		a.Ratio = median(all, a.of)
		a.Met = a.Ratio <= a.Most
		word := "met"
		if !a.Met {
			word = "MISSED"
		}
		fmt.Printf("%-45s %6.3f, aim %6.3f: %s by %.0f %%\n", a.What, a.Ratio, a.Most, word, 100*math.Abs(a.Ratio/a.Most-1))
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(map[string]any{"disk_mib": bench.mib, "files_mib": bench.source.files >> 20,
			"medians": m, "rounds": all, "aims": told}, "", "  ")
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
