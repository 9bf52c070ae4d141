.PHONY: links
links:
	@for d in converters runtime server_stub; do [ -e edgefl/$$d ] || ln -s ../$$d edgefl/$$d; done
