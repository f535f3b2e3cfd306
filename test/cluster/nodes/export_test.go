package nodes

// NodesID tells tests what the links and cgroups of a cache directory are named by.
func NodesID(cache string) (string, error) {
	s, err := read(cache)
	if err != nil {
		return "", err
	}
	return s.id, nil
}
