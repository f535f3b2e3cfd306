package cluster

// Ended tells tests which component has ended by itself, as Stop will.
func (c *Cluster) Ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended()
}
