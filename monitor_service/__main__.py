import sys

from monitor_service.cli import main

sys.exit(main())
