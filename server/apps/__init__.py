"""Pages that hosts with MCP Apps render inside a conversation."""
