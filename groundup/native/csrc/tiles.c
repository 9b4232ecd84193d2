// Whether tiles can be used: the system has to be asked, once for the process.

#include "tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

int groundup_tiles(void);

int groundup_tiles(void) {
#if defined(GROUNDUP_SOFTWARE_TILES)
    return 1;
#elif HAVE_TILES
    const int request_permission = 0x1023, tile_data = 18;  // arch/x86/include/uapi/asm/prctl.h
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return 0;
#endif
}
