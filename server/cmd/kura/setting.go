package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// settings finds what the command line leaves out: in the environment, then in
// the configuration file that serve names.
type settings struct {
	getenv func(string) string
	file   map[string]any // nil = not read yet
}

// Validate has nothing to do: keys are checked when the file is read.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve returns a flag's value, nil when it is set nowhere.
func (s *settings) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if !flag.Tag.Has("setting") || rivalGiven(ctx, flag) {
		return nil, nil //nolint:nilnil // kong's way to say that there is none
	}
	if text := s.getenv(variable(flag.Name)); text != "" {
		return text, nil
	}
	if parent.Command == nil || parent.Command.Name != "serve" || flag.Name == configFlag {
		return nil, nil //nolint:nilnil // as above
	}
	if s.file == nil {
		path := s.configFile(ctx)
		if path == "" {
			return nil, nil //nolint:nilnil // as above
		}
		var err error
		if s.file, err = readConfig(path, parent.Command.Flags); err != nil {
			return nil, err
		}
	}
	return s.file[key(flag.Name)], nil
}

const configFlag = "config"

func (s *settings) configFile(ctx *kong.Context) string {
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == configFlag {
			return fmt.Sprint(ctx.FlagValue(p.Flag))
		}
	}
	return s.getenv(variable(configFlag))
}

// rivalGiven says whether the command line names another flag of the same
// choice, which then stands above the environment.
func rivalGiven(ctx *kong.Context, flag *kong.Flag) bool {
	return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool {
		return p.Flag != nil && p.Flag != flag && slices.ContainsFunc(p.Flag.Xor, func(x string) bool { return slices.Contains(flag.Xor, x) })
	})
}

// variable is the name of a flag in the environment, key its name in the file.
func variable(flag string) string { return "KURA_" + strings.ToUpper(key(flag)) }
func key(flag string) string      { return strings.ReplaceAll(flag, "-", "_") }

// readConfig reads a configuration file whose keys are the names of flags.
func readConfig(path string, flags []*kong.Flag) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseConfig(path, text, flags)
}

func parseConfig(path string, text []byte, flags []*kong.Flag) (map[string]any, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	config := map[string]any{}
	if doc.Kind == 0 { // an empty file
		return config, nil
	}
	value, err := plainYAML(doc.Content[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	all, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: want a mapping of keys to values", path)
	}
	var known, unknown []string
	for _, f := range flags {
		if f.Tag.Has("setting") && f.Name != configFlag {
			known = append(known, key(f.Name))
		}
	}
	for k, v := range all {
		if !slices.Contains(known, k) {
			unknown = append(unknown, k)
		}
		if _, nested := v.(map[string]any); nested {
			return nil, fmt.Errorf("%s: key %s takes a value, not a mapping", path, k)
		}
		config[k] = v
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		slices.Sort(known)
		return nil, fmt.Errorf("%s: unknown key %s; known are %s", path, strings.Join(unknown, ", "), strings.Join(known, ", "))
	}
	return config, nil
}

// plainYAML turns YAML into what JSON can hold. Scalars that YAML takes for
// dates stay text; those that are no number and no switch are text as well.
func plainYAML(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			var err error
			if list[i], err = plainYAML(item); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if _, twice := m[k.Value]; twice || k.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: key %q is there twice or is no plain word", k.Line, k.Value)
			}
			v, err := plainYAML(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[k.Value] = v
		}
		return m, nil
	case yaml.ScalarNode:
		return plainScalar(n)
	}
	return nil, errors.New("only mappings, lists and values can be read")
}

func plainScalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		var v any
		err := n.Decode(&v)
		return v, err
	}
	return n.Value, nil
}

// withVariable is a flag's help with the variable that stands for it.
func withVariable(v *kong.Value) string {
	if v.Flag == nil || !v.Tag.Has("setting") {
		return v.Help
	}
	return v.Help + " (" + variable(v.Name) + ")"
}

// nameValues gives flags the names of their values in the help.
func nameValues(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && f.Tag.Get("as") != "" {
			f.PlaceHolder = f.Tag.Get("as")
		}
		return next(nil)
	})
}
