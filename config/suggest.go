package config

import "strings"

// maxDistance is how many letters a slip may add, drop or change and still be
// taken for the word it is near to.
const maxDistance = 2

// suggest returns the key that somebody who wrote key may have meant, or "". It
// looks among the keys of the same table (at the top: the tables too), then for
// the same name in other tables, since a key below the wrong header is a slip
// that TOML invites.
func suggest(key string) string {
	key = strings.ToLower(key)
	table, name := split(key)
	best, distance := "", maxDistance+1
	candidates := keyNames()
	if table == "" {
		candidates = append(candidates, tableNames()...)
	}
	for _, c := range candidates {
		t, n := split(c)
		// At most half of a short word may differ, else it is another word.
		if d := editDistance(name, n); t == table && d < distance && 2*d <= min(len(n), len(name)) {
			best, distance = c, d
		}
	}
	if best != "" {
		return best
	}
	for _, c := range candidates {
		if _, n := split(c); n == name {
			return c
		}
	}
	return ""
}

// split cuts a key into its table, empty at the top, and its name.
func split(key string) (table, name string) {
	i := strings.LastIndexByte(key, '.')
	if i < 0 {
		return "", key
	}
	return key[:i], key[i+1:]
}

// editDistance counts the octets to add, drop, change or swap with their
// neighbour to make b of a. Words that differ much in length are not compared:
// the result is then their difference, which is never too large.
func editDistance(a, b string) int {
	if diff := max(len(a)-len(b), len(b)-len(a)); diff > maxDistance {
		return diff
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 0
			if a[i-1] != b[j-1] {
				change = 1
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
