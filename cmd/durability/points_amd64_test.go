package durability_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A program dies before or after each sync, rename, link, unlink and commit. What
// it leaves is the state before or the state after, as architecture(7) has them,
// and the next runner makes the best of it.
func TestEachCrashPointLeavesOneOfTwoStates(t *testing.T) {
	var mu sync.Mutex
	reached := make(map[string]bool)
	t.Run("scenes", func(t *testing.T) { // returns when all of them have
		for _, s := range scenes() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				visits := s.visits(t)
				for _, name := range slices.Sorted(maps.Keys(visits)) {
					for nth := 1; nth <= min(visits[name], 2); nth++ {
						died, err := s.dieAt(t, programs("points"), name, nth)
						if err != nil {
							t.Errorf("dead at %s, time %d: %v", name, nth, err)
						}
						mu.Lock()
						reached[name] = reached[name] || died
						mu.Unlock()
					}
				}
			})
		}
	})
	for name, where := range pointsInSource(t) {
		if !reached[name] && unreachable()[name] == "" {
			t.Errorf("%s: in no scene anybody dies at %s", where, name)
		}
	}
}

// unreachable are the points that no scene gets to, and why.
func unreachable() map[string]string {
	const age = "a file whose change time is 8 days ago cannot be made"
	return map[string]string{"leftover.unlink.before": age, "leftover.unlink.after": age}
}

// visits plays a scene to its end, and returns how often it got to each point.
func (s scene) visits(t *testing.T) map[string]int {
	t.Helper()
	b := newBox(t, programs("points"))
	s.prepare(b)
	list := filepath.Join(b.dir, "points")
	b.env = []string{"POSTINO_CRASH=?" + list}
	s.act(b)
	b.env = nil
	if err := s.judge(b); err != nil {
		t.Errorf("%s, without a crash: %v", s.name, err)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	visits := make(map[string]int)
	for name := range strings.Lines(string(text)) {
		visits[strings.TrimSpace(name)]++
	}
	return visits
}

// dieAt plays a scene with the programs in bin until one dies at a point, and
// returns whether one did: how many commits there are, say, is a matter of who waits
// at the time. The error is the harm that was done.
func (s scene) dieAt(t *testing.T, bin, name string, nth int) (died bool, err error) {
	t.Helper()
	b := newBox(t, bin)
	s.prepare(b)
	b.deaths = 0
	b.env = []string{"POSTINO_CRASH=" + name + ":" + strconv.Itoa(nth)}
	s.act(b)
	b.env = nil
	return b.deaths > 0, s.judge(b)
}

// judge looks at what is left, and then has a sound runner finish.
func (s scene) judge(b *box) error {
	window := 0
	if s.name == "delivery" {
		window = underWay
	}
	v := b.judge()
	v.Torn = slices.DeleteFunc(v.Torn, func(subject string) bool { return subject == garbage })
	err := errors.Join(s.statesAre(b), check(v, window, false))
	if err != nil {
		return err
	}
	if s.name == "trimming" || s.name == "steering" || s.name == "the failed list" {
		return nil // what is given up or kept goes nowhere
	}
	b.configure()
	v, err = b.drain()
	return check(v, window, false, err)
}

// pointsInSource finds the crash points of all packages, and where they are.
func pointsInSource(t *testing.T) map[string]string {
	t.Helper()
	points := make(map[string]string)
	files := token.NewFileSet()
	err := filepath.WalkDir(filepath.Join(root(), "spool"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fun, ok := call.Fun.(*ast.SelectorExpr); ok && fmt.Sprint(fun.X, fun.Sel) == "crashpoint Here" {
				where := files.Position(n.Pos()).String()
				literal, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: its name is no literal", where)
					return true
				}
				name, _ := strconv.Unquote(literal.Value)
				if points[name] != "" {
					t.Errorf("%s and %s are both %s", points[name], where, name)
				}
				points[name] = where
			}
			return true
		})
		return nil
	})
	if err != nil || len(points) == 0 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	return points
}
