"""Where DataFlow's own chaos script lies. Step 8.1 only looks whether there is one."""
