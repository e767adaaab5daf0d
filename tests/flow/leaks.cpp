// A store that dies in a test leaves exchanges where they were, as kill -9 does: nobody will ever end
// them. The leak sanitizer would call that a leak.
extern "C" const char* __asan_default_options();  // NOLINT: the sanitizer's name
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
